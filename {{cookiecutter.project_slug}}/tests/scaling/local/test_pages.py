"""The pages of development machines, which no server has."""

import json
import re
import threading
import time

import pytest
from django.core.mail import EmailMultiAlternatives
from django.urls import include, path

from {{ cookiecutter.project_slug }}.scaling.local import check_address, mail, status
from tests.scaling.urls import urlpatterns as site

urlpatterns = [*site, path("dev/", include("{{ cookiecutter.project_slug }}.scaling.local.urls"))]


@pytest.fixture(autouse=True)
def development(settings, tmp_path, monkeypatch):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "{{ cookiecutter.project_slug }}.scaling.local"]
    static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": static}
    backend = "{{ cookiecutter.project_slug }}.scaling.local.mail.EmailBackend"
    settings.MAILERS = {"default": {"BACKEND": backend}}
    settings.MEDIA_ROOT = tmp_path
    monkeypatch.setattr(mail, "FOLDER", tmp_path / "mail")
    monkeypatch.setattr(status, "FOLDER", tmp_path / "mail")


def report(client, **values):
    return client.post("/dev/csp/", json.dumps({"csp-report": values}), content_type="application/csp-report")


def test_refused_by_the_policy(client, caplog):
    where = {"document-uri": "https://testserver/page/?key=1", "source-file": "https://testserver/page/"}
    what = {"effective-directive": "script-src-elem", "blocked-uri": "inline", "line-number": 12}

    assert report(client, **where, **what).status_code == 204

    line = "Content Security Policy: script-src-elem refuses inline on /page/, from /page/:12"
    assert line in caplog.messages


@pytest.mark.parametrize("body", ["", "[]", '{"csp-report": {}}', '{"csp-report": 1}', "\x00"])
def test_no_report(client, caplog, body):
    response = client.post("/dev/csp/", body, content_type="application/csp-report")

    assert response.status_code == 400
    assert "Content Security Policy" not in caplog.text


def test_oldest_mails_are_deleted(client, monkeypatch):
    monkeypatch.setattr(mail, "KEPT", 2)
    for number in range(3):
        EmailMultiAlternatives(f"Mail {number}", "Text", None, ["ada@example.com"]).send()

    page = client.get("/dev/mail/").text

    assert re.findall(r"Mail \d", page) == ["Mail 2", "Mail 1"]
    assert len(list(mail.FOLDER.iterdir())) == 2


def test_mail_is_kept_and_shown(client):
    message = EmailMultiAlternatives("Grüße", "See https://example.com/reset/?a=1&b=2", None, ["ada@example.com"])
    message.attach_alternative("<p>See <script>1</script></p>", "text/html")
    message.send()

    address = re.search(r'href="(/dev/mail/[^"]+/)">Grüße<', client.get("/dev/mail/").text)[1]

    assert 'href="https://example.com/reset/?a=1&amp;b=2"' in client.get(address).text
    html = client.get(f"{address}html/")
    assert html.getvalue().endswith(b"<p>See <script>1</script></p>\n")
    assert "default-src 'none'" in html["Content-Security-Policy"]
    assert "sandbox allow-popups allow-popups-to-escape-sandbox" in html["Content-Security-Policy"]


def test_no_such_mail(client):
    assert client.get("/dev/mail/none/").status_code == 404


def test_status_waits_for_nobody(client, monkeypatch):
    hangs = threading.Event()

    def fail():
        raise OSError("it is broken")

    monkeypatch.setattr(status, "PATIENCE", 0.2)
    parts = {"hung": hangs.wait, "broken": fail, "whole": lambda: status.Status("works", "")}
    monkeypatch.setattr(status, "PARTS", parts)

    start = time.monotonic()
    found = dict(status.statuses())
    seconds = time.monotonic() - start
    hangs.set()

    assert seconds < 2
    assert found["hung"].text == "It has not answered within 0.2 s."
    assert found["broken"].text == "OSError: it is broken"
    assert found["whole"].state == "works"


def test_documentation_only(client):
    assert client.get("/dev/docs/operations.md").status_code == 200
    assert client.get("/dev/docs/pyproject.toml").status_code == 404


@pytest.mark.parametrize("address", ["nope", "127.0.0.1:", "127.0.0.1:99999"])
def test_no_address(address):
    with pytest.raises(SystemExit, match=f"{address} is no address"):
        check_address(address)
