from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from {{ cookiecutter.project_slug }}.settings import deploy


def test_check_deploy_is_silent(settings):
    settings.MAILERS = deploy.MAILERS  # instead of the mailbox that Django puts in its place for tests

    call_command("check", deploy=True, fail_level="WARNING")


def test_plain_http_is_redirected():
    response = Client().get(reverse("home"))

    assert (response.status_code, response["Location"]) == (301, f"https://testserver{reverse('home')}")


def test_hsts_over_https_only(client):
    hsts = client.get(reverse("home"))["Strict-Transport-Security"]

    assert hsts.startswith(f"max-age={settings.SECURE_HSTS_SECONDS}")
    assert "Strict-Transport-Security" not in Client().get(reverse("home"))


def test_scripts_come_from_the_site_only(client):
    assert "unsafe" not in client.get(reverse("home"))["Content-Security-Policy"]
