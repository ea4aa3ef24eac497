"""Apps of others work after what docs/third-party.md says, and nothing else, was done to a project.

The tests do to rendered projects what its blocks say, install through `make lock` and `make setup`, and ask as browsers
do, with the deploy settings.
"""

import contextlib
import json
import os
import re
import socketserver
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from conftest import ROOT, Project, Server, clean_environment, free_port
from markdown_it import MarkdownIt
from servers import Redis, wait_until
from test_cdn import Browser

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI"), reason="installs many packages: CI=true make test ARGS=tests/test_third_party.py"
)

# What is installed together, and the answers to the prompts.
APIS = ["Django REST framework", "drf-spectacular", "django-ninja", "django-filter", "django-import-export", "htmx"]
GROUPS = {
    "apis": ([*APIS, "django-allauth", "django-celery-results"], {"use_celery": True}),
    "admins": (["django-unfold", "Wagtail", "django-allauth"], {"login_with": "email"}),
}
NAME = "grace@example.com"

MODELS = """
from django.db import models

from ..scaling.db.models import TimestampedModel


class Product(TimestampedModel):
    name = models.CharField(max_length=50, unique=True)
    price = models.DecimalField(max_digits=6, decimal_places=2)

    def __str__(self):
        return self.name
"""

PRODUCTS = """
from my_project.shop.models import Product

Product.objects.create(name="Tea", price=1)
Product.objects.create(name="Coffee", price=2)
"""

# The deploy settings; to compress the scripts of API pages takes longer than all tests.
SETTINGS = """
from my_project.settings.deploy import *

WHITENOISE_SKIP_COMPRESS_EXTENSIONS = ["css", "js", "json", "map", "svg", "txt"]
"""

# A result of long ago, and a schedule that is due; then a result of today.
OLD_RESULT = """
from datetime import UTC, datetime

from django_celery_results.models import TaskResult
from my_project.scaling.tasks.models import PeriodicRun

long_ago = datetime(2026, 1, 1, tzinfo=UTC)
TaskResult.objects.create(task_id="old")
TaskResult.objects.update(date_done=long_ago)
PeriodicRun.objects.create(name="delete-results", last_run_at=long_ago)
"""
NEW_RESULT = """
import time

from django_celery_results.models import TaskResult
from my_project.shop.tasks import count_products

new = TaskResult.objects.filter(task_id=count_products.apply_async_on_commit())
old = TaskResult.objects.filter(task_id="old")
end = time.monotonic() + 60
while time.monotonic() < end and (old.exists() or not new.exists()):
    time.sleep(0.1)
print(*new.values_list("status", "result"), *old)
"""

FORBIDDEN = re.compile("Content Security Policy|Uncaught|Refused")


def sections(text):
    """Return the blocks of each section of the document, as (language, file, list or None, content)."""
    found, name = {}, None
    tokens = MarkdownIt().parse(text)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and token.tag == "h2":
            name = following.content
            found[name] = []
        elif token.type == "fence" and token.info == "sh" and name:
            found[name].append(("sh", None, None, token.content))
        elif token.type == "fence" and name:
            first, _, content = token.content.partition("\n")
            place = re.fullmatch(r"(?:#|/\*|\{#) ([\w/.-]+)(?:, (\w+))?(?: \*/| #\})?", first)
            assert place, f"{name}: {first!r} names no file"
            found[name].append((token.info, place[1], place[2], content))
    return found


def apply(project, blocks):
    """Do what blocks say: what names a list goes to its end, the rest to the end of the file, imports to its top."""
    for language, path, name, content in blocks:
        if language == "sh":
            project.run("sh", "-ec", content)
            continue
        file = project.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        old = file.read_text() if file.exists() else ""
        if language == "diff":
            before, after = (
                "".join(f"{line[1:]}\n" for line in content.splitlines() if line[:1] != sign) for sign in "+-"
            )
            assert old.count(before) == 1, f"{path} has not\n{before}"
            file.write_text(old.replace(before, after))
        elif name:
            found = re.search(rf"^{name} = \[(.*?),?\s*\]$", old, re.MULTILINE | re.DOTALL)
            new = [line for line in content.strip().split("\n") if line.rstrip(",") not in found[1]]
            items = ",\n    ".join([found[1].strip(), *new]).rstrip(",")
            file.write_text(f"{old[: found.start()]}{name} = [\n    {items},\n]{old[found.end() :]}")
        elif old and file.suffix == ".py":
            imports = re.findall(r"^(?:from|import) .*\n", content, re.MULTILINE)
            rest = re.sub(r"^(?:from|import) .*\n", "", content, flags=re.MULTILINE).strip("\n")
            top = re.search(r"^(?:from|import) ", old, re.MULTILINE).start()
            file.write_text(f"{old[:top]}{''.join(imports)}{old[top:].rstrip()}\n\n{rest}\n")
        else:
            file.write_text(old + content)


class Render(Project):
    """A project with apps of others, installed as the document says."""

    def __init__(self, cookies, names, answers):
        baked = cookies.bake(extra_context=answers)
        assert baked.exception is None, baked.exception
        super().__init__(baked.project_path)
        self.sections = sections((self.path / "docs" / "third-party.md").read_text())
        for app in ("shop", "pages"):
            (self.package / app / "migrations").mkdir(parents=True)
            for module in ("__init__.py", "migrations/__init__.py"):
                (self.package / app / module).touch()
        (self.package / "shop" / "models.py").write_text(MODELS)
        apply(self, [("python", "my_project/settings/base.py", None, 'INSTALLED_APPS += ["my_project.shop"]\n')])
        for name in names:
            apply(self, self.sections[name])

    def install(self):
        self.run("git", "init", "--quiet")
        self.run("make", "lock")
        self.run("make", "setup")
        self.manage("makemigrations")
        self.run("git", "add", "--all")
        return self

    @contextlib.contextmanager
    def served(self, folder, **values):
        """Serve it on gunicorn with the deploy settings; give the Server."""
        with self.database() as url:
            (folder / "third_settings.py").write_text(SETTINGS)
            self.environment = self.configure(
                folder,
                ALLOWED_HOSTS=["127.0.0.1"],
                DATABASE_URL=url,
                HTTPS=False,
                MEDIA_ROOT=str(folder / "media"),
                WORKERS=1,
                **values,
            ) | {"DJANGO_SETTINGS_MODULE": "third_settings", "PYTHONPATH": f"{self.path}:{folder}"}
            self.manage("migrate", **self.environment)
            self.manage("collectstatic", "--no-input", **self.environment)
            account = {"USERNAME": NAME, "EMAIL": NAME, "PASSWORD": "secret"}
            account = {f"DJANGO_SUPERUSER_{field}": value for field, value in account.items()}
            self.manage("createsuperuser", "--no-input", **self.environment, **account)
            self.shell(PRODUCTS)
            address = f"127.0.0.1:{free_port()}"
            server = Server(
                [self.python, "-m", "gunicorn", "--config=deploy/gunicorn.conf.py", f"--bind={address}"],
                address,
                folder / "gunicorn.log",
                cwd=self.path,
                env=clean_environment(**self.environment),
            )
            server.project = self
            try:
                yield server.wait_until_up()
            finally:
                server.stop()

    def shell(self, code):
        """Run code with the settings of the server; return what it printed."""
        return self.manage("shell", "--no-imports", "--verbosity=0", "--command", code, **self.environment).stdout


class Visitor(Browser):
    """A browser of somebody who minds what its console says."""

    def __init__(self, site, profile):
        super().__init__(profile)
        self.site = site

    def visit(self, path):
        """Load a page; fail if anything on it was forbidden."""
        self.open(self.site.url + path)
        assert self.complaints() == []

    def complaints(self):
        return [text for text in self.console() if FORBIDDEN.search(text)]

    def submit(self, script):
        """Run a script that leads to another page, and wait until that is there."""
        self.events.clear()
        self.evaluate(f"void ({script})")
        self.wait_for(lambda: self.complaints() or "Page.loadEventFired" in dict(self.events))
        assert self.complaints() == []

    def text(self):
        return self.evaluate("document.body.innerText")

    def fill(self, **values):
        """Fill in fields of the form by their names, and send it."""
        for name, value in values.items():
            self.evaluate(f"void (document.querySelector('[name={name}]').value = {json.dumps(value)})")
        last = next(reversed(values))
        self.submit(f"document.querySelector('[name={last}]').form.requestSubmit()")

    def log_in(self, path):
        self.visit(path)
        if "login" in self.evaluate("location.pathname"):
            self.fill(username=NAME, password="secret")


@pytest.fixture(scope="module")
def render(cookies_session):
    """Return a function that returns a group's project; all are installed at the same time."""
    projects = {group: Render(cookies_session, *of_group) for group, of_group in GROUPS.items()}
    with ThreadPoolExecutor() as pool:
        installed = {group: pool.submit(project.install) for group, project in projects.items()}
        yield lambda group: installed[group].result()


@pytest.fixture(scope="module")
def visiting(render, servers, tmp_path_factory):
    """Return a function that opens a browser on a group's site, which is served until the last test has ended."""
    provider, mail, redis = servers
    with contextlib.ExitStack() as stack:

        @cache
        def visiting(group):
            project, folder = render(group), tmp_path_factory.mktemp(group)
            base = project.package / "settings" / "base.py"
            base.write_text(base.read_text().replace("https://login.example.com", provider))
            broker = {"CELERY_BROKER_URL": redis} if "use_celery" in GROUPS[group][1] else {}
            site = stack.enter_context(project.served(folder, EMAIL_URL=mail, **broker))
            browser = Visitor(site, folder / "profile")
            stack.callback(browser.stop)
            return browser

        yield visiting


@pytest.fixture
def apis(visiting):
    browser = visiting("apis")
    browser.log_in("/admin/login/?next=/admin/")
    return browser


def test_browsable_api(apis):
    apis.visit("/api/products/")
    apis.fill(name="Milk", price="2.50")
    assert "201 Created" in apis.text()
    apis.visit("/api/products/")

    assert '"Milk"' in apis.text()


def test_swagger_of_spectacular(apis):
    apis.visit("/api/docs/")
    apis.wait_for(lambda: "/api/products/" in apis.text())

    assert all(url.startswith((apis.site.url, "data:")) for url in apis.responses())
    assert apis.complaints() == []


def test_docs_of_ninja(apis):
    apis.visit("/ninja/docs")
    apis.wait_for(lambda: "/ninja/products" in apis.text())

    assert all(url.startswith((apis.site.url, "data:")) for url in apis.responses())
    assert "Tea" in [product["name"] for product in apis.site.get("/ninja/products").json()]


def test_filter(apis):
    apis.visit("/products/?price__lte=1")

    assert "Tea" in apis.text()
    assert "Coffee" not in apis.text()


def test_import_and_export(apis, tmp_path):
    apis.visit("/admin/shop/product/export/")
    session = {cookie["name"]: cookie["value"] for cookie in apis.send("Network.getCookies")["cookies"]}
    fields = dict.fromkeys(["productresource_id", "productresource_name", "productresource_price"], "on")
    headers = {"Referer": apis.site.url, "X-CSRFToken": session["csrftoken"]}
    form = {"format": "0", **fields}
    exported = requests.post(
        f"{apis.site.url}/admin/shop/product/export/", form, headers=headers, cookies=session, timeout=30
    )

    assert exported.text.splitlines()[0] == "id,name,price"
    file = tmp_path / "products.csv"
    file.write_text(exported.text.replace("Coffee", "Strong coffee") + ",Cocoa,3\n")
    apis.visit("/admin/shop/product/import/")
    document = apis.send("DOM.getDocument")["root"]["nodeId"]
    field = apis.send("DOM.querySelector", nodeId=document, selector="[name=import_file]")["nodeId"]
    apis.send("DOM.setFileInputFiles", nodeId=field, files=[str(file)])
    apis.fill(format="0")
    apis.submit("document.querySelector('[name=confirm]').click()")
    apis.visit("/products/")

    assert "Strong coffee" in apis.text()
    assert "Cocoa" in apis.text()


def test_htmx(apis):
    apis.visit("/stock/")
    shown = "getComputedStyle(document.querySelector('.htmx-indicator')).visibility"
    assert apis.evaluate(shown) == "hidden"

    button = "document.querySelector('button[hx-get]')"
    during = apis.evaluate(f"({button}.click(), {shown})")
    apis.wait_for(lambda: re.search(r"\d products", apis.text()))

    assert during == "visible"
    assert apis.evaluate(f"{button}.textContent") == "Again"
    assert apis.complaints() == []


def test_unfold(visiting):
    browser = visiting("admins")
    browser.log_in("/admin/login/?next=/admin/")
    assert browser.evaluate("location.pathname") == "/admin/"
    for path in ("/admin/shop/product/", "/admin/accounts/user/", "/admin/shop/product/add/"):
        browser.visit(path)
    browser.fill(name="Juice", price="3")
    browser.visit("/admin/shop/product/")

    assert "Juice" in browser.text()


def test_wagtail(visiting):
    browser = visiting("admins")
    browser.send("Network.clearBrowserCookies")
    browser.log_in("/cms/login/?next=/cms/")
    assert browser.evaluate("location.pathname") == "/cms/"
    browser.visit("/cms/pages/add/pages/textpage/1/")
    key = browser.site.project.shell(
        "from wagtail.models import Page, Site\n"
        "from my_project.pages.models import TextPage\n"
        "page = Page.get_first_root_node().add_child(instance=TextPage(title='Tea', body='<p>Green or black</p>'))\n"
        "Site.objects.update_or_create({'root_page': page, 'hostname': '127.0.0.1'}, is_default_site=True)\n"
        "print(page.add_child(instance=TextPage(title='Green', body='<p>From Uji</p>')).pk)"
    ).split()[-1]
    browser.visit("/pages/green/")
    assert "From Uji" in browser.text()

    browser.visit(f"/cms/pages/{key}/edit/")
    browser.evaluate("void document.querySelector('[aria-label=\"Toggle preview\"]').click()")
    frames = "[...document.querySelectorAll('iframe')].map(frame => frame.contentDocument?.body?.innerText).join()"
    wait_until(lambda: browser.complaints() or "From Uji" in browser.evaluate(frames), 60)
    assert browser.complaints() == []

    browser.fill(title="Green tea")
    browser.visit("/pages/green/")
    assert "Green tea" not in browser.text()


class Provider(BaseHTTPRequestHandler):
    """A site that people log in with by OpenID Connect, where everybody is Ada."""

    def do_GET(self):
        url = urlsplit(self.path)
        query = dict(parse_qs(url.query))
        site = f"http://{self.headers['Host']}"
        if url.path == "/authorize":
            self.send_response(302)
            answer = urlencode({"code": "a-code", "state": query["state"][0]})
            self.send_header("Location", f"{query['redirect_uri'][0]}?{answer}")
            self.end_headers()
        elif url.path == "/userinfo":
            assert self.headers["Authorization"] == "Bearer a-token"
            self.answer({"sub": "1", "preferred_username": "ada", "email": "ada@example.com", "email_verified": True})
        else:
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "userinfo_endpoint": "userinfo"}
            endpoints = {name: f"{site}/{path}" for name, path in names.items()}
            self.answer({"issuer": site, "jwks_uri": f"{site}/jwks"} | endpoints)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert form["code"] == ["a-code"]
        self.answer({"access_token": "a-token", "token_type": "Bearer", "expires_in": 60})

    def answer(self, values):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(values).encode())

    def log_message(self, *arguments):
        pass


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server that accepts everything."""

    mails: ClassVar = []

    def handle(self):
        self.wfile.write(b"220 ready\r\n")
        in_mail, lines = False, []
        for line in self.rfile:
            if in_mail and line != b".\r\n":
                lines.append(line.decode())
                continue
            in_mail = line.upper().startswith(b"DATA")
            if lines:
                self.mails.append("".join(lines))
                lines = []
            self.wfile.write(b"354 go on\r\n" if in_mail else b"250 well\r\n")
            if line.upper().startswith(b"QUIT"):
                return


@pytest.fixture(scope="module")
def servers(folder):
    """The URLs of the provider, the mail server and the broker."""
    with (
        ThreadingHTTPServer(("localhost", 0), Provider) as provider,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as mailbox,
    ):
        for server in (provider, mailbox):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        redis = Redis(folder).start()
        yield f"http://localhost:{provider.server_port}", f"smtp://127.0.0.1:{mailbox.server_address[1]}", redis.url()
        redis.stop()
        provider.shutdown()
        mailbox.shutdown()


@pytest.fixture(params=GROUPS)
def allauth(request, visiting):
    """A stranger, on a site where people log in with a username and on one where they do so with an address."""
    browser = visiting(request.param)
    browser.send("Network.clearBrowserCookies")
    return browser


def test_sign_up_with_allauth(allauth):
    Mailbox.mails.clear()
    allauth.visit("/accounts/signup/")
    name = {} if allauth.evaluate("document.querySelector('[name=username]') === null") else {"username": "bob"}
    password = "correct horse battery staple"
    allauth.fill(**name, email="bob@example.com", password1=password, password2=password)
    assert allauth.evaluate("location.pathname") == "/"
    wait_until(lambda: any("bob@example.com" in mail for mail in Mailbox.mails))

    allauth.send("Network.clearBrowserCookies")
    allauth.visit("/")
    allauth.submit("document.querySelector('header a[href=\"/accounts/email/\"]').click()")
    allauth.fill(login="bob" if name else "BOB@example.com", password=password)

    assert allauth.evaluate("location.pathname") == "/accounts/email/"
    assert "bob@example.com" in allauth.text()
    assert "Log out" in allauth.text()


def test_oauth_with_allauth(allauth, servers):
    allauth.site.project.shell(
        "from allauth.socialaccount.models import SocialApp\n"
        "SocialApp.objects.create(provider='openid_connect', provider_id='example', name='Example', client_id='site',"
        f" secret='secret', settings={{'server_url': '{servers[0]}'}})"
    )
    allauth.visit("/accounts/login/")
    allauth.submit("document.querySelector('a[href*=oidc]').click()")
    allauth.events.clear()
    allauth.evaluate("void document.querySelector('main form').requestSubmit()")
    allauth.wait_for(lambda: allauth.complaints() or allauth.address() == f"{allauth.site.url}/")
    assert allauth.complaints() == []
    allauth.visit("/accounts/email/")

    assert "ada@example.com" in allauth.text()


def test_celery_results(visiting, tmp_path):
    """The result of a task is a row, and beat has those deleted that have expired."""
    project = visiting("apis").site.project
    project.shell(OLD_RESULT)
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [project.python.with_name("celery"), "--app=my_project", "worker", "--concurrency=1", "--beat"],
            cwd=project.path,
            env=clean_environment(**project.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        results = project.shell(NEW_RESULT)
    finally:
        worker.terminate()
        worker.wait(30)

    assert re.fullmatch(r"\('SUCCESS', '\d'\)\n", results)


def test_bound_of_celery_beat(cookies_session):
    """The resolver says what is wrong, rather than to take a version from before it declared any Django."""
    project = Render(cookies_session, [], {"use_celery": True})
    apply(project, [("toml", "pyproject.toml", "dependencies", '"django-celery-beat>=2.8",\n')])

    ran = project.run("make", "lock", check=False)

    assert ran.returncode != 0
    assert re.search(
        r"django-celery-beat>=2\.8.* depends on django>=2\.2,<6\.1", " ".join(ran.stdout.split()), re.IGNORECASE
    ), ran.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_project_of_the_owner(render, group):
    """What the project brings itself still passes: its tests of the site, and make lint when that has repaired all."""
    project = render(group)
    project.run(project.python, "-m", "ruff", "check", "--quiet", "--fix")
    project.run(project.python, "-m", "ruff", "format", "--quiet")
    project.run("make", "lint")
    project.run("make", "test", "ARGS=-q -n 0 tests/test_*.py")


@pytest.mark.parametrize("name", sorted({name for names, _ in GROUPS.values() for name in names}))
def test_section_alone(cookies_session, name):
    """No section uses what another one imports; drf-spectacular says that it goes with another one."""
    names = APIS[:2] if name == "drf-spectacular" else [name]
    project = Render(cookies_session, names, GROUPS["apis"][1])

    project.run(ROOT / ".venv" / "bin" / "ruff", "check", "--select=F821")
