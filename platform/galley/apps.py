from django.apps import AppConfig


class GalleyConfig(AppConfig):
    name = "galley"

    def ready(self) -> None:
        from galley import celery  # noqa: F401  (makes our app the current one, also in the web process)
