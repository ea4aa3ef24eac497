from django.apps import AppConfig


class PinsConfig(AppConfig):
    name = "my_project.pins"
