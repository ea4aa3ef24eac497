"""The addresses of these tests, in place of the project's."""

from django.contrib import admin
from django.urls import path
from django.views.generic import TemplateView

PAGE = "/"

urlpatterns = [
    path("", TemplateView.as_view(template_name="base.html"), name="home"),
    path("admin/", admin.site.urls),
]
