"""The life of an account as its owner sees it, on gunicorn with two workers, and what guards it from others."""

import re
import signal
import socketserver
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email import message_from_string
from email.policy import default
from types import SimpleNamespace

import pytest
import requests
from conftest import clean_environment
from servers import Postgres, Redis, Relay, Site, wait_until
from test_options import ON

URLS = """
from my_project.urls import handler500, urlpatterns
"""

# As many as settings/base.py allows for one account, and for one address that mistypes a name each time.
PER_ACCOUNT, PER_ADDRESS = 10, 50

PASSWORD, NEXT_PASSWORD, LAST_PASSWORD = (
    "correct horse battery",
    "another horse, another battery",
    "the last horse of all",
)

EXPLAIN = """
from my_project.accounts.models import User
from django.db import connection
connection.cursor().execute("SET enable_seqscan = off")
print(User.objects.filter(email__iexact="Ada@example.com").explain())
print(User.objects.filter(email="Ada@example.com").explain())
"""


class SMTPHandler(socketserver.StreamRequestHandler):
    def handle(self):
        def answer(line):
            self.wfile.write(f"{line}\r\n".encode())

        answer("220 ready")
        for line in self.rfile:
            command = line.split()[0].upper()
            if command == b"DATA":
                answer("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(message_from_string(b"".join(lines).decode(), policy=default))
            answer("221 bye" if command == b"QUIT" else "250 fine")


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server that keeps what it gets in `mails`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SMTPHandler)
        self.mails = []
        self.url = f"smtp://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Browser(requests.Session):
    """Somebody at an address: forms are sent with their token, and redirects followed."""

    def __init__(self, site, address):
        super().__init__()
        self.site = site
        self.headers["X-Forwarded-For"] = address

    def open(self, path):
        return self.get(f"http://127.0.0.1:{self.site.port}{path}", timeout=30)

    def submit(self, path, form=None, page=None, **options):
        """Send the form of a page, by default that at its own address."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.open(page or path).text)[1]
        form = {"csrfmiddlewaretoken": token} | (form or {})
        return self.post(f"http://127.0.0.1:{self.site.port}{path}", form, timeout=30, **options)

    def log_in(self, name, password, path="/accounts/login/"):
        return self.submit(path, {"username": name, "password": password}, allow_redirects=False).status_code

    def log_out(self):
        return self.submit("/accounts/logout/", page="/accounts/")

    def is_logged_in(self):
        return "You are logged in as" in self.open("/accounts/").text


@pytest.fixture(scope="module")
def postgres(default_project, folder):
    server = Postgres(default_project.python, folder, max_connections=60)
    server.control("start")
    yield server
    server.control("stop", "-m", "immediate")


@pytest.fixture(scope="module")
def redis(folder):
    server = Redis(folder).start()
    yield SimpleNamespace(server=server, relay=Relay(server.port))
    server.stop()


@pytest.fixture(scope="module", params=["username, database", "e-mail, Redis"])
def site(request, set_up, postgres, tmp_path_factory):
    """A site with two workers; one has Redis for a cache, and a worker of Celery that sends its mail."""
    by_email = request.param == "e-mail, Redis"
    project = set_up(**(ON if by_email else {}))
    folder = tmp_path_factory.mktemp("accounts")
    mail_server = MailServer()
    database = "addresses" if by_email else "names"
    postgres.execute(f"CREATE DATABASE {database}")
    values = {"DATABASE_URL": postgres.url(database), "EMAIL_URL": mail_server.url}
    values |= {"WORKERS": 2, "TRUSTED_PROXIES": ["127.0.0.1"]}
    redis = request.getfixturevalue("redis") if by_email else None
    if by_email:
        values["CACHE_REDIS_URL"] = redis.server.url(port=redis.relay.port)
        values["CELERY_BROKER_URL"] = redis.server.url(1)
    site = Site(project, folder, URLS, **values)
    site.by_email, site.mails, site.redis = by_email, mail_server.mails, redis
    project.manage("migrate", "--verbosity=0", **site.environment)
    project.manage("collectstatic", "--no-input", "--verbosity=0", **site.environment)
    worker = None
    if by_email:
        command = [project.python.with_name("celery"), "--quiet", "--app=my_project", "worker", "--concurrency=1"]
        log = (folder / "worker.log").open("w")
        environment = clean_environment(**site.environment)
        worker = subprocess.Popen(command, cwd=project.path, env=environment, stdout=log, stderr=log)
    try:
        site.start("/accounts/login/")
        yield site
    finally:
        site.stop()
        mail_server.shutdown()
        if worker:
            worker.send_signal(signal.SIGQUIT)
            worker.wait(30)


def only(*params):
    return pytest.mark.parametrize("site", params, indirect=True, scope="module")


@pytest.fixture
def browse(site):
    """Return a browser at an address."""
    return lambda address="192.0.2.1": Browser(site, address)


def details(site, name, password=PASSWORD):
    """Return what somebody enters to sign up."""
    names = {"email": f"{name}@Example.com"} | ({} if site.by_email else {"username": name})
    return names | {"password1": password, "password2": password}


def login_name(site, name):
    return f"{name}@example.com" if site.by_email else name


def test_life_of_an_account(site, browse):
    browser, phone = browse(), browse("192.0.2.2")
    browser.submit("/accounts/signup/?next=/accounts/password_change/", details(site, "Ada"))
    assert browser.is_logged_in()
    browser.log_out()
    assert not browser.is_logged_in()

    name = login_name(site, "ada" if site.by_email else "Ada")
    assert [visitor.log_in(name, PASSWORD) for visitor in (browser, phone)] == [302, 302]
    passwords = {"new_password1": NEXT_PASSWORD, "new_password2": NEXT_PASSWORD}
    changed = browser.submit("/accounts/password_change/", {"old_password": PASSWORD} | passwords)
    assert changed.url.endswith("/accounts/password_change/done/")
    assert browser.is_logged_in()
    assert not phone.is_logged_in()

    sent = phone.submit("/accounts/password_reset/", {"email": "ADA@example.com"})
    assert sent.url.endswith("/accounts/password_reset/done/")
    wait_until(lambda: site.mails)
    [mail] = site.mails
    [link] = re.findall(rf"http://127.0.0.1:{site.port}(/\S+)", mail.get_content())
    form = phone.open(link).url.partition(str(site.port))[2]
    passwords = {"new_password1": LAST_PASSWORD, "new_password2": LAST_PASSWORD}
    assert phone.submit(form, passwords).url.endswith("/accounts/reset/done/")
    assert not browser.is_logged_in()
    assert phone.log_in(name, NEXT_PASSWORD) == 200
    assert phone.log_in(name, LAST_PASSWORD) == 302
    assert "expired" in browse().open(link).text
    assert mail["To"] == ("ada@example.com" if site.by_email else "Ada@example.com")


def test_second_click(site, browse):
    """Two forms at once make one account, and no error."""
    browsers = [browse(f"192.0.2.{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda browser: browser.submit("/accounts/signup/", details(site, "click")), browsers))

    assert [answer.status_code for answer in answers] == [200] * 6
    assert sum(browser.is_logged_in() for browser in browsers) == 1


@pytest.mark.parametrize("path", ["/accounts/login/", "/admin/login/"])
def test_attempts_of_all_processes_are_counted(site, browse, path):
    browser = browse(f"198.51.100.{len(path)}")
    browser.submit("/accounts/signup/", details(site, f"grace{len(path)}"))
    name = login_name(site, f"grace{len(path)}")
    browser.open(path)
    with ThreadPoolExecutor(8) as pool:
        browsers = [browse(f"198.51.100.{len(path)}") for _ in range(3 * PER_ACCOUNT)]
        answers = Counter(pool.map(lambda browser: browser.log_in(name, "wrong", path), browsers))

    assert answers == {200: PER_ACCOUNT, 429: 2 * PER_ACCOUNT}
    refused = browsers[0].submit(path, {"username": name, "password": PASSWORD}, allow_redirects=False)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    assert "<h1>Too many attempts</h1>" in refused.text
    assert browse("203.0.113.1").log_in(name, PASSWORD) == 302
    posts = [line for line in site.log.read_text().splitlines() if '"POST"' in line and path in line]
    assert len({re.search(r'"process": ?(\d+)', line)[1] for line in posts}) == 2


def test_forged_address(site, browse):
    """What the visitor wrote into X-Forwarded-For stands before what the proxy did."""
    forgers = [browse(f"203.0.113.{number}, 198.51.100.99") for number in range(PER_ACCOUNT + 1)]

    assert [forger.log_in("nobody@example.com", "wrong") for forger in forgers][-1] == 429


@only("username, database")
def test_attempts_of_an_address(site, browse):
    """With a name of its own each; all of one network of IPv6 are one address."""
    browsers = [browse(f"2001:db8::{number:x}") for number in range(PER_ADDRESS + 1)]
    with ThreadPoolExecutor(8) as pool:
        answers = Counter(
            pool.map(lambda browser: browser.log_in(browser.headers["X-Forwarded-For"], "wrong"), browsers)
        )

    assert answers == {200: PER_ADDRESS, 429: 1}
    assert browse("2001:db8:0:1::1").log_in("nobody", "wrong") == 200


def test_host_that_is_not_ours(site, browse):
    browser, before = browse("203.0.113.7"), len(site.mails)
    browser.submit("/accounts/signup/", details(site, "host"))
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.open("/accounts/password_reset/").text)[1]
    form = {"csrfmiddlewaretoken": token, "email": "host@example.com"}
    url = f"http://127.0.0.1:{site.port}/accounts/password_reset/"

    assert browser.post(url, form, headers={"Host": "evil.example"}).status_code == 400
    assert browser.post(url, form, headers={"X-Forwarded-Host": "evil.example"}).status_code == 200
    wait_until(lambda: len(site.mails) > before)
    [mail] = site.mails[before:]
    assert "evil.example" not in mail.as_string()


@only("e-mail, Redis")
def test_answer_does_not_tell_who_has_an_account(site, browse):
    """Where a worker sends the mail: the site does the same in both cases."""
    browser = browse("203.0.113.8")
    browser.submit("/accounts/signup/", details(site, "known"))
    asked = ("known@example.com", "unknown@example.com")
    answers = [browser.submit("/accounts/password_reset/", {"email": email}) for email in asked]
    first, second = (answer.text.replace(email, "") for answer, email in zip(answers, asked, strict=True))

    def queries():
        lines = [line for line in site.log.read_text().splitlines() if '"POST"' in line and "password_reset/" in line]
        return [re.search(r'"queries": ?(\d+)', line)[1] for line in lines[-2:]]

    assert first == second
    time.sleep(0.2)  # lines of the log are written ten times a second
    assert len(set(queries())) == 1


def test_pages_are_kept_by_nobody(site, browse):
    for path in ("login", "signup", "password_reset", "password_reset/done", "reset/done"):
        directives = browse().open(f"/accounts/{path}/").headers["Cache-Control"]
        assert {"private", "no-store"} <= set(directives.split(", "))


@only("e-mail, Redis")
def test_redis_that_hangs(site, browse):
    """Nobody waits for the count, and nobody is refused for want of it."""
    browser = browse("203.0.113.9")
    browser.submit("/accounts/signup/", details(site, "patient"))
    browser.log_out()
    site.redis.relay.flowing.clear()
    try:
        started = time.monotonic()
        answers = [browse("203.0.113.9").log_in("patient@example.com", "wrong") for _ in range(2 * PER_ACCOUNT)]
        took = time.monotonic() - started
        right = browser.log_in("patient@example.com", PASSWORD)
    finally:
        site.redis.relay.flowing.set()

    assert answers == [200] * 2 * PER_ACCOUNT
    assert right == 302
    assert took < 2 * PER_ACCOUNT * 0.3 + 2  # half a second once in each of the two workers


@only("e-mail, Redis")
def test_one_account_however_its_address_is_written(site, browse):

    def createsuperuser(email, check=True):
        arguments = ("--no-input", f"--email={email}")
        password = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        return site.project.manage("createsuperuser", *arguments, check=check, **site.environment, **password)

    createsuperuser("Root@Example.com")
    again = createsuperuser("rOOT@example.com", check=False)
    browser = browse("203.0.113.10")
    signed_up = browser.submit("/accounts/signup/", details(site, "ROOT"))

    assert again.returncode != 0
    assert "already" in again.stdout
    assert "already" in signed_up.text
    assert browser.log_in("rooT@EXAMPLE.com", PASSWORD, "/admin/login/") == 302
    plans = site.project.manage("shell", "--no-imports", "--command", EXPLAIN, **site.environment).stdout
    assert plans.count("Index Cond") == 2
