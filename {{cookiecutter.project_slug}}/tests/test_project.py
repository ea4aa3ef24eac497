from django.core.cache import cache
from django.core.management import call_command
from django.db import connection


def test_migrations_are_complete(db):
    call_command("makemigrations", check=True, dry_run=True)


def test_cache_keys_name_the_project_and_the_environment(db):
    cache.set("a", 1)

    with connection.cursor() as cursor:
        cursor.execute("SELECT cache_key FROM cache")
        assert cursor.fetchall() == [("{{ cookiecutter.project_slug }}:production:1:a",)]
