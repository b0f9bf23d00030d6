from django.apps import AppConfig


class StylesConfig(AppConfig):
    name = "apps.styles"

    def ready(self) -> None:
        from apps.projects.services import project_created
        from apps.styles.services import add_standard_presets

        project_created.connect(add_standard_presets, dispatch_uid="styles.standard_presets")
