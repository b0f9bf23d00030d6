"""Every address of the product."""

from django.contrib import admin
from django.urls import include, path

from galley.api import api
from galley.health import healthz

urlpatterns = [
    path("", include("apps.projects.urls")),
    path("", include("apps.accounts.urls")),
    path("", include("apps.styles.urls")),
    path("", include("apps.drafts.urls")),
    path("", include("apps.batches.urls")),
    path("", include("apps.reviews.urls")),
    path("", include("apps.tuning.urls")),
    path("api/v1/", api.urls),
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
]
handler403 = "apps.common.views.forbidden"
handler404 = "apps.common.views.not_found"
handler500 = "apps.common.views.server_error"
