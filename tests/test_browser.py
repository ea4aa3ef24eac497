"""A real browser shows the pages under the Content Security Policy of the deploy settings."""

import re
import subprocess

import pytest
from conftest import Server, clean_environment, free_port, needs
from test_cdn import Browser

# The deploy settings, with every visitor signed in.
SETTINGS = """
from my_project.settings.deploy import *

MIDDLEWARE = [*MIDDLEWARE, "browser_settings.sign_in"]

ROOT_URLCONF = "browser_urls"


def sign_in(get_response):
    from django.contrib.auth import get_user_model

    def middleware(request):
        request.user = get_user_model().objects.get(username="grace")
        return get_response(request)

    return middleware
"""

# A form whose answer leads to another host, as when somebody signs in with another site.
URLS = """
from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.csp import CSP
from django.views.decorators.csp import csp_override
from my_project.urls import urlpatterns as site


def form(request):
    return HttpResponse('<form method="post" action="/leave/"></form>')


def leave(request):
    return HttpResponseRedirect(f"http://localhost:{request.get_port()}/arrived/")


leave.csrf_exempt = True
allow = csp_override(settings.SECURE_CSP | {"form-action": [CSP.SELF, "http://localhost:*"]})

urlpatterns = [
    *site,
    path("form/", form),
    path("allowed-form/", allow(form)),
    path("leave/", leave),
    path("arrived/", lambda request: HttpResponse("arrived")),
]
"""

PAGES = [
    "/",
    "/accounts/",
    "/accounts/login/",
    "/accounts/signup/",
    "/accounts/password_change/",
    "/accounts/password_reset/",
    "/accounts/reset/uid/token/",
    "/admin/",
    "/admin/accounts/user/",
    "/admin/accounts/user/add/",
    "/admin/accounts/user/{grace}/change/",
    "/admin/accounts/user/{grace}/history/",
    "/admin/accounts/user/{grace}/delete/",
    "/admin/auth/group/add/",
    "/admin/password_change/",
    "/no/such/page",
]


@pytest.fixture(scope="module")
def site(default_project, database_url, tmp_path_factory):
    """The project on gunicorn, with an account."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "browser_settings.py").write_text(SETTINGS)
    (folder / "browser_urls.py").write_text(URLS)
    environment = default_project.configure(
        folder, ALLOWED_HOSTS=["127.0.0.1", "localhost"], DATABASE_URL=database_url, HTTPS=False, WORKERS=1
    ) | {"DJANGO_SETTINGS_MODULE": "browser_settings", "PYTHONPATH": f"{default_project.path}:{folder}"}
    default_project.manage("migrate", **environment)
    default_project.manage("collectstatic", "--no-input", **environment)
    account = ("--no-input", "--username=grace", "--email=grace@example.com")
    default_project.manage("createsuperuser", *account, **environment, DJANGO_SUPERUSER_PASSWORD="secret")
    address = f"127.0.0.1:{free_port()}"
    server = Server(
        [default_project.python, "deploy/web.py", f"--bind={address}"],
        address,
        folder / "gunicorn.log",
        cwd=default_project.path,
        env=clean_environment(**environment),
    ).wait_until_up()
    server.grace = re.search(r"/admin/accounts/user/(\d+)/change/", server.get("/admin/accounts/user/").text)[1]
    yield server
    server.stop()
    forget = "from django.contrib.auth import get_user_model as model; model().objects.all().delete()"
    default_project.manage("shell", "--no-imports", "--command", forget, **environment)


def visit(url, profile):
    """Load a page; return its document as it is after its scripts ran, and what the console said."""
    ran = subprocess.run(
        [
            needs("chromium", "chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", "--virtual-time-budget=2000", f"--user-data-dir={profile}", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.stdout, re.findall(r"CONSOLE[^\n]*", ran.stderr)


@pytest.mark.parametrize("path", PAGES)
def test_page(site, tmp_path, path):
    document, console = visit(site.url + path.format(grace=site.grace), tmp_path)

    assert "<h1" in document
    assert [line for line in console if re.search("Content Security Policy|Uncaught", line)] == []


def test_violation_is_noticed(site, tmp_path):
    """What the tests above would see if a page broke the policy."""
    policy = site.get("/").headers["Content-Security-Policy"]
    page = tmp_path / "page.html"
    page.write_text(f'<meta http-equiv="Content-Security-Policy" content="{policy}"><script>1</script>')

    _, console = visit(page.as_uri(), tmp_path / "profile")

    assert any("Content Security Policy" in line for line in console)


def test_scripts_of_the_admin_run(site, tmp_path):
    """The calendar of a date field is made by a script."""
    document, _ = visit(f"{site.url}/admin/accounts/user/{site.grace}/change/", tmp_path)

    assert "calendarbox" in document


@pytest.mark.parametrize("path", ["form", "allowed-form"])
def test_form_that_leads_to_another_host(site, tmp_path, path):
    """Only where the policy of the form's page names the host."""
    browser = Browser(tmp_path)

    def blocked():
        return any("form-action" in line for line in browser.console())

    def arrived():
        return (browser.address() or "").startswith("http://localhost:")

    try:
        browser.open(f"{site.url}/{path}/")
        browser.events.clear()
        browser.evaluate("void document.forms[0].submit()")
        browser.wait_for(lambda: blocked() or arrived())
        ended = blocked(), arrived()
    finally:
        browser.stop()

    assert ended == (path == "form", path == "allowed-form")
