from django.core.management import call_command


def test_migrations_are_complete(db):
    call_command("makemigrations", check=True, dry_run=True)
