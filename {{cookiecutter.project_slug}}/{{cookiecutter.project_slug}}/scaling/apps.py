from django.apps import AppConfig
from django.core.management import call_command
from django.db.models.signals import post_migrate


class ScalingConfig(AppConfig):
    name = "{{ cookiecutter.project_slug }}.scaling"

    def ready(self):
        from . import checks  # noqa: F401  registers the system checks

        # A migration runs once: it would miss a LOCATION that changes later, and a cache that was off when it ran.
        post_migrate.connect(create_cache_tables, sender=self)


def create_cache_tables(using, **kwargs):
    """Create the tables that CACHES names, so that `migrate` is enough; routers know them as django_cache."""
    call_command("createcachetable", database=using, verbosity=0)
