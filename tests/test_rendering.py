"""Rendering gives the same, clean files everywhere, at once and without a network."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, clean_environment

PATHS = """
.cruft.json
.dockerignore
.gitattributes
.github/dependabot.yml
.github/workflows/ci.yml
.github/workflows/updates.yml
.gitignore
.pre-commit-config.yaml
Dockerfile
Makefile
README.md
app_template/app/__init__.py-tpl
app_template/app/admin.py-tpl
app_template/app/apps.py-tpl
app_template/app/migrations/__init__.py-tpl
app_template/app/models.py-tpl
app_template/app/urls.py-tpl
app_template/app/views.py-tpl
app_template/templates/detail.html-tpl
app_template/templates/list.html-tpl
app_template/tests/test_app_name.py-tpl
compose.yaml
config.example.json
deploy/database.sql
deploy/gunicorn.conf.py
deploy/monitoring/alerts.yml
deploy/monitoring/dashboard.json
deploy/monitoring/statsd_exporter.yml
deploy/nginx.conf
deploy/ready.py
deploy/serve.py
deploy/web.py
docs/accounts.md
docs/architecture.md
docs/asgi.md
docs/deploy.md
docs/operations.md
docs/scaling.md
docs/third-party.md
docs/updates.md
manage.py
my_project/__init__.py
my_project/accounts/__init__.py
my_project/accounts/admin.py
my_project/accounts/apps.py
my_project/accounts/forms.py
my_project/accounts/migrations/0001_initial.py
my_project/accounts/migrations/__init__.py
my_project/accounts/models.py
my_project/accounts/urls.py
my_project/accounts/views.py
my_project/asgi.py
my_project/config.py
my_project/scaling/__init__.py
my_project/scaling/apps.py
my_project/scaling/cache/__init__.py
my_project/scaling/cache/database_cache.py
my_project/scaling/checks.py
my_project/scaling/config/__init__.py
my_project/scaling/config/command.py
my_project/scaling/config/file.py
my_project/scaling/config/types.py
my_project/scaling/config/words.py
my_project/scaling/db/__init__.py
my_project/scaling/db/export.py
my_project/scaling/db/models.py
my_project/scaling/db/pagination.py
my_project/scaling/db/postgresql/__init__.py
my_project/scaling/db/postgresql/base.py
my_project/scaling/files/__init__.py
my_project/scaling/files/uploads.py
my_project/scaling/http/__init__.py
my_project/scaling/http/deadline.py
my_project/scaling/http/gauges.py
my_project/scaling/http/health.py
my_project/scaling/http/languages.py
my_project/scaling/http/messages.py
my_project/scaling/http/proxies.py
my_project/scaling/http/public.py
my_project/scaling/http/rate_limit.py
my_project/scaling/http/security.py
my_project/scaling/local/__init__.py
my_project/scaling/local/apps.py
my_project/scaling/local/forms.py
my_project/scaling/local/mail.py
my_project/scaling/local/management/commands/lintmigrations.py
my_project/scaling/local/migrate.py
my_project/scaling/local/postgres.py
my_project/scaling/local/static/dev/dev.css
my_project/scaling/local/static/dev/picture.svg
my_project/scaling/local/status.py
my_project/scaling/local/templates/dev/base.html
my_project/scaling/local/templates/dev/documents.html
my_project/scaling/local/templates/dev/mail.html
my_project/scaling/local/templates/dev/mails.html
my_project/scaling/local/templates/dev/nav.html
my_project/scaling/local/templates/dev/parts.html
my_project/scaling/local/templates/dev/samples.html
my_project/scaling/local/templates/dev/status.html
my_project/scaling/local/templates/dev/welcome.html
my_project/scaling/local/templatetags/__init__.py
my_project/scaling/local/templatetags/development.py
my_project/scaling/local/urls.py
my_project/scaling/local/views.py
my_project/scaling/logs/__init__.py
my_project/scaling/logs/lines.py
my_project/scaling/logs/request_log.py
my_project/scaling/logs/statsd.py
my_project/scaling/mail.py
my_project/scaling/management/commands/explain.py
my_project/scaling/management/commands/makeapp.py
my_project/scaling/management/commands/migrate.py
my_project/scaling/management/commands/purge.py
my_project/scaling/models.py
my_project/scaling/passwords.py
my_project/scaling/templatetags/__init__.py
my_project/scaling/templatetags/scaling.py
my_project/scaling/timeouts.py
my_project/settings/__init__.py
my_project/settings/base.py
my_project/settings/deploy.py
my_project/settings/development.py
my_project/static/css/site.css
my_project/static/errors/413.html
my_project/static/errors/429.html
my_project/static/errors/unavailable.html
my_project/static/favicon.svg
my_project/templates/400.html
my_project/templates/403.html
my_project/templates/403_csrf.html
my_project/templates/404.html
my_project/templates/413.html
my_project/templates/429.html
my_project/templates/500.html
my_project/templates/accounts/account.html
my_project/templates/accounts/login.html
my_project/templates/accounts/password_change.html
my_project/templates/accounts/password_change_done.html
my_project/templates/accounts/password_reset.html
my_project/templates/accounts/password_reset_complete.html
my_project/templates/accounts/password_reset_confirm.html
my_project/templates/accounts/password_reset_done.html
my_project/templates/accounts/password_reset_mail.txt
my_project/templates/accounts/password_reset_subject.txt
my_project/templates/accounts/password_reset_unavailable.html
my_project/templates/accounts/signup.html
my_project/templates/admin/base_site.html
my_project/templates/base.html
my_project/templates/home.html
my_project/templates/pagination.html
my_project/urls.py
my_project/wsgi.py
pyproject.toml
requirements-dev.txt
requirements.txt
tests/browser.py
tests/config.json
tests/conftest.py
tests/load.py
tests/rows.py
tests/scaling/cache/test_cache.py
tests/scaling/conftest.py
tests/scaling/db/test_export.py
tests/scaling/db/test_models.py
tests/scaling/db/test_pagination.py
tests/scaling/db/test_timeouts.py
tests/scaling/files/test_uploads.py
tests/scaling/http/test_gauges.py
tests/scaling/http/test_health.py
tests/scaling/http/test_languages.py
tests/scaling/http/test_messages.py
tests/scaling/http/test_proxies.py
tests/scaling/http/test_public.py
tests/scaling/http/test_rate_limit.py
tests/scaling/http/test_security.py
tests/scaling/local/test_pages.py
tests/scaling/logs/test_logs.py
tests/scaling/models.py
tests/scaling/test_checks.py
tests/scaling/test_config.py
tests/scaling/test_explain.py
tests/scaling/test_mail.py
tests/scaling/test_passwords.py
tests/scaling/urls.py
tests/test_accounts.py
tests/test_models.py
tests/test_pages.py
tests/test_security.py
tests/test_signup.py
tests/test_urls.py
"""


def render(output, *answers, **environment):
    """Render with the command line that people use; return the rendered files and whether they can be executed."""
    subprocess.run(
        [Path(sys.executable).with_name("cookiecutter"), "--no-input", "--output-dir", output, ROOT, *answers],
        env=clean_environment(**environment),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {
        str(path.relative_to(output)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in output.rglob("*")
        if path.is_file()
    }


def test_paths(cookies):
    path = cookies.bake().project_path

    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == PATHS.split()


def test_same_answers_same_bytes(tmp_path):
    answers = ("project_name=Søk & Finn", "description=Почта")
    here = render(tmp_path / "here", *answers, TZ="UTC", LC_ALL="C.UTF-8", PYTHONHASHSEED="1")
    old_umask = os.umask(0o077)
    try:
        elsewhere = render(
            tmp_path / "elsewhere", *answers, TZ="Asia/Kathmandu", LC_ALL="C", LANG="tr_TR.UTF-8", PYTHONHASHSEED="2"
        )
    finally:
        os.umask(old_umask)

    assert here == elsewhere


def test_offline(tmp_path):
    """Rendering, hooks included, opens no network connection."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*arguments): raise RuntimeError('rendering must not use the network')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
    )
    blocked = {"PYTHONPATH": str(tmp_path)}
    probe = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    ran = subprocess.run(probe, env=clean_environment(**blocked), capture_output=True, text=True, check=False)
    assert "must not use the network" in ran.stderr

    assert render(tmp_path / "out", **blocked)
