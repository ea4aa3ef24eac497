"""`make browser`: Chrome or Chromium, whichever is on PATH, shows pages, and complains about nothing in them.

What breaks the Content Security Policy, and what a script trips over, stands in the browser's console only.
"""

import re
import shutil
import subprocess

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse

from tests.rows import make

PROGRAMS = ("google-chrome", "chromium", "chromium-browser")

PAGES = ["home", "account", "password_change", "admin:index", "admin:accounts_user_add", "admin:auth_group_add"]


def sign_in(get_response):
    """Take every visitor for a superuser."""

    def middleware(request):
        request.user = get_user_model().objects.get()
        return get_response(request)

    return middleware


@pytest.fixture
def site(request, settings, transactional_db):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.sign_in"]
    settings.SECURE_SSL_REDIRECT = False
    make(get_user_model(), is_staff=True, is_superuser=True)
    return request.getfixturevalue("live_server").url


def visit(url, profile):
    """Load a page; return its document as its scripts leave it, and the lines of the console."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None) or pytest.fail(f"None of {PROGRAMS} is on PATH.")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=2000", f"--user-data-dir={profile}", "--dump-dom"]
    ran = subprocess.run([program, *options, url], capture_output=True, text=True, timeout=60, check=False)
    return ran.stdout, re.findall(r"CONSOLE[^\n]*", ran.stderr)


@pytest.mark.parametrize("name", PAGES)
def test_page(site, tmp_path, name):
    document, console = visit(site + reverse(name), tmp_path)

    assert "<h1" in document
    assert console == []
