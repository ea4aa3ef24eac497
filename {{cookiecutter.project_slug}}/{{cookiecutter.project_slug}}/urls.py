"""The addresses of the site."""

from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import include, path
from django.views.generic import TemplateView

from .scaling.http.rate_limit import rate_limited

handler500 = "{{ cookiecutter.project_slug }}.scaling.http.deadline.handler500"

# The admin's pages count under the same names, so both pages share one limit.
admin.site.login = rate_limited("login", account="username", only_failures=True)(admin.site.login)
admin.site.password_change = rate_limited("password_change", only_failures=True)(admin.site.password_change)

urlpatterns = [
    path("", TemplateView.as_view(template_name="home.html"), name="home"),
    path("accounts/", include("{{ cookiecutter.project_slug }}.accounts.urls")),
    path("admin/", admin.site.urls),
    *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT),  # on your machine only
]

if "debug_toolbar" in settings.INSTALLED_APPS:
    from debug_toolbar.toolbar import debug_toolbar_urls

    urlpatterns += debug_toolbar_urls()

if "{{ cookiecutter.project_slug }}.scaling.local" in settings.INSTALLED_APPS:
    urlpatterns += [path("dev/", include("{{ cookiecutter.project_slug }}.scaling.local.urls"))]
