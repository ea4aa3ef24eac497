from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

from {{ cookiecutter.project_slug }}.scaling.db.models import FetchModeManager


@pytest.mark.django_db(databases="__all__")
def test_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True)


def is_own(model):
    """Tell whether a model is the project's, and not one of a package that is installed."""
    path = Path(model._meta.app_config.path)
    return path.is_relative_to(settings.BASE_DIR) and "site-packages" not in path.parts


def test_fetch_mode_of_every_model():
    """A model with another manager would send a query for each row, unnoticed."""
    own = [model for model in apps.get_models() if is_own(model)]
    others = [model._meta.label for model in own if not isinstance(model._default_manager, FetchModeManager)]

    assert own
    if others:
        pytest.fail(
            f"{', '.join(others)}: write `objects = FetchModeManager()`, or inherit TimestampedModel, which has it;"
            " both are in scaling/db/models.py.",
            pytrace=False,
        )
