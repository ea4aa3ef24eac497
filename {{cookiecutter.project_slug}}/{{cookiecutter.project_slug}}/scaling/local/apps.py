from django.apps import AppConfig


class LocalConfig(AppConfig):
    name = "{{ cookiecutter.project_slug }}.scaling.local"
    label = "scaling_local"
