#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import os
import sys
from argparse import ArgumentParser


def main():
    """Run a command; those of `config` work even when the settings do not."""
    if sys.argv[1:2] == ["config"]:
{% if cookiecutter.use_celery %}
        # celery.py, which comes with the package, would ask for local.py, which a server does not have yet.
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings.base")
{% endif %}
        from {{ cookiecutter.project_slug }}.config import Config
        from {{ cookiecutter.project_slug }}.scaling.config import command

        sys.exit(command.main(Config, sys.argv[2:]))

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings.local")

    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line, handle_default_options

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    handle_default_options(parser.parse_known_args(sys.argv[2:])[0])
    try:
        settings.INSTALLED_APPS  # noqa: B018  imports the settings: what is wrong with them is said without a traceback
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
