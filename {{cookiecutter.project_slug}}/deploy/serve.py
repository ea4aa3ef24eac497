"""`make serve`: what servers run, but over plain HTTP on this machine and on the project's own PostgreSQL.

The keys in .local/config.json, which is yours, replace what is filled in here.
"""

import json
import os
{% if cookiecutter.media_storage == "filesystem" %}
import re
{% endif %}
import signal
import subprocess
import sys
import tempfile
{% if cookiecutter.media_storage == "filesystem" %}
from importlib import import_module
{% endif %}
from pathlib import Path
{% if cookiecutter.media_storage == "filesystem" %}

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import re_path
from django.views.static import serve
{% endif %}

from {{ cookiecutter.project_slug }}.config import Config
from {{ cookiecutter.project_slug }}.scaling.config.file import RefusedError, parsed, report
{% if cookiecutter.use_celery %}
from {{ cookiecutter.project_slug }}.scaling.local import check_address, postgres, worker
{% else %}
from {{ cookiecutter.project_slug }}.scaling.local import check_address, postgres
{% endif %}
{% if cookiecutter.media_storage == "filesystem" %}
from {{ cookiecutter.project_slug }}.settings import base
{% endif %}

YOURS = Path(".local", "config.json")


def read_yours():
    """Return the values in .local/config.json; make it, with a secret key, if it is not there."""
    if not YOURS.exists():
        first = {"SECRET_KEY": Config.example()["SECRET_KEY"], "EMAIL_URL": None}
        YOURS.parent.mkdir(exist_ok=True)
        YOURS.touch(mode=0o600)
        YOURS.write_text(json.dumps(first, indent=2) + "\n")
    try:
        values, problems = parsed(YOURS)
    except RefusedError as error:
        sys.exit(report(f"{YOURS} is not JSON of keys and values:", error.args))
    if problems:
        sys.exit(report(f"{YOURS} cannot be used:", problems))
    return values


def run(*command):
    """Run a command of Python; raise SystemExit if it fails."""
    with subprocess.Popen([sys.executable, *command]) as process:
        try:
            status = process.wait()
        finally:
            process.terminate()
    if status:
        sys.exit(status)


{% if cookiecutter.media_storage == "filesystem" %}
def with_media():
    """Return the application with the uploaded files under MEDIA_URL, which nginx serves on servers."""
    application = get_wsgi_application()
    path = rf"^{re.escape(settings.MEDIA_URL.lstrip('/'))}(?P<path>.+)$"
    site = import_module(settings.ROOT_URLCONF)
    site.urlpatterns.insert(0, re_path(path, serve, {"document_root": settings.MEDIA_ROOT}))
    return application


{% endif %}
def main(address):
    """Serve until Ctrl-C."""
    check_address(address)
    yours = read_yours()
    values = Config.example() | {"ALLOWED_HOSTS": ["127.0.0.1", "localhost"], "HTTPS": False, "PURGE_ADDRESSES": []}
{% if cookiecutter.media_storage == "filesystem" %}
    values["MEDIA_ROOT"] = str(base.MEDIA_ROOT)
{% endif %}
    if "DATABASE_URL" not in yours:
        values["DATABASE_URL"] = os.environ.get("DATABASE_URL") or postgres.start()
{% if cookiecutter.use_celery %}
    broker = yours.get("CELERY_BROKER_URL") or os.environ.get("CELERY_BROKER_URL") or worker.start_redis()
    if broker:
        values["CELERY_BROKER_URL"] = broker
{% endif %}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.touch(mode=0o600)
        file.write_text(json.dumps(values | yours))
        if problems := Config.read(file)[1]:
            sys.exit(report(f"{YOURS} cannot be used:", problems))
        os.environ["DJANGO_CONFIG"] = str(file)
        os.environ["DJANGO_SETTINGS_MODULE"] = "{{ cookiecutter.project_slug }}.settings.deploy"
        sys.stdout.write(f"Keys of the config that are to differ here, such as EMAIL_URL, are in {YOURS}.\n")
{% if cookiecutter.use_celery %}
        if not broker:
            sys.stdout.write("Tasks wait for a worker, which needs redis-server on PATH or a CELERY_BROKER_URL.\n")
{% endif %}
        sys.stdout.flush()
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for deploy/web.py
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        run("-m", "{{ cookiecutter.project_slug }}.scaling.local.migrate")
        run("manage.py", "collectstatic", "--no-input", "--verbosity=0")
{% if cookiecutter.use_celery %}
        if broker:
            worker.start_celery()
{% endif %}
{% if cookiecutter.media_storage == "filesystem" %}
        run("deploy/web.py", f"--bind={address}", "deploy.serve:with_media()")
{% else %}
        run("deploy/web.py", f"--bind={address}")
{% endif %}


if __name__ == "__main__":
    main(sys.argv[1])
