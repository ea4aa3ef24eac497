"""`make serve`: what servers run, but over plain HTTP on this machine and on the project's own PostgreSQL."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from {{ cookiecutter.project_slug }}.config import Config
from {{ cookiecutter.project_slug }}.scaling.local import postgres
{% if cookiecutter.media_storage == "filesystem" %}
from {{ cookiecutter.project_slug }}.settings import base
{% endif %}

values = Config.example() | {
    "ALLOWED_HOSTS": ["127.0.0.1", "localhost"],
    "DATABASE_URL": os.environ.get("DATABASE_URL") or postgres.start(),
    "HTTPS": False,
{% if cookiecutter.media_storage == "filesystem" %}
    "MEDIA_ROOT": str(base.MEDIA_ROOT),
{% endif %}
}
file = Path(".local", "config.json").resolve()
file.parent.mkdir(exist_ok=True)
file.touch(mode=0o600)
file.write_text(json.dumps(values))
os.environ["DJANGO_CONFIG"] = str(file)
os.environ["DJANGO_SETTINGS_MODULE"] = "{{ cookiecutter.project_slug }}.settings.deploy"

signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for gunicorn
for command in (
    ["manage.py", "collectstatic", "--no-input", "--verbosity=0"],
    ["-m", "gunicorn", "--config=deploy/gunicorn.conf.py", f"--bind={sys.argv[1]}"],
):
    if status := subprocess.run([sys.executable, *command], check=False).returncode:
        sys.exit(status)
