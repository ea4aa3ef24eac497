"""The example, laid over a fresh project as its README says: it is tested, checked, served and loaded."""

import csv
import json
import re

import pytest
import requests
from conftest import ROOT, Server, clean_environment, free_port
from servers import Redis, wait_until
from test_accounts import MailServer
from test_media import GIF
from test_public import ADDRESSES, CHANGES, nobody_gets_what_is_somebodys
from test_server import HOST, Nginx, certify

EXAMPLE = ROOT / "examples" / "pins"
ANSWERS = dict.fromkeys(("use_redis", "use_celery", "use_cdn", "use_replica"), True)
PASSWORD = "correct horse battery staple"

# Pages that are the same for everybody, and say so.
PUBLIC = {"/pins/", "/pins/api/", "/pins/api/1/"}

# What only the one who is logged in as somebody gets to see; owners of boards are shown to everybody.
SECRETS = r"logged in as somebody|somebody@example\.com|<strong>somebody|is on the board"

STAFF = """
from django.contrib.auth import get_user_model

get_user_model().objects.filter(username="somebody").update(is_staff=True, is_superuser=True)
"""


class Visitor(requests.Session):
    """Somebody with a browser: forms are sent with the token of their page, and redirects followed."""

    def __init__(self, url):
        super().__init__()
        self.url = url

    def open(self, path, **options):
        return self.get(self.url + path, timeout=30, **options)

    def submit(self, path, files=None, **fields):
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.open(path).text)[1]
        page = self.post(self.url + path, {"csrfmiddlewaretoken": token} | fields, files=files, timeout=30)
        assert page.status_code == 200, page.text
        assert 'aria-invalid="true"' not in page.text
        return page

    def sign_up(self, name):
        names = {"username": name, "email": f"{name}@example.com"}
        return self.submit("/accounts/signup/", **names, password1=PASSWORD, password2=PASSWORD)


@pytest.fixture(scope="module")
def project(set_up, folder):
    project = set_up(**ANSWERS).copy(folder)
    *_, steps = re.findall(r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    project.run("bash", "-ec", steps, EXAMPLE=str(EXAMPLE))
    return project


@pytest.fixture(scope="module")
def mails(folder):
    with MailServer() as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def site(project, mails, folder):
    """What `make serve` serves, with a cache in Redis and a worker."""
    redis = Redis(folder).start()
    config = json.loads((project.path / "config.example.json").read_text())
    values = {"SECRET_KEY": 10 * "a key of the test ", "EMAIL_URL": mails.url, "CACHE_REDIS_URL": redis.url()}
    values["ALLOWED_HOSTS"] = ["127.0.0.1", HOST]
    assert values.keys() < config.keys()
    yours = project.path / ".local" / "config.json"
    yours.touch(mode=0o600)
    yours.write_text(json.dumps(values))
    address = f"127.0.0.1:{free_port()}"
    server = Server(
        ["make", "serve", f"ADDRESS={address}"],
        address,
        folder / "make-serve.log",
        cwd=project.path,
        env=clean_environment(CELERY_BROKER_URL=redis.url(1)),
    )
    try:
        yield server.wait_until_up()
    finally:
        server.stop()
        redis.stop()
    assert "Traceback" not in server.log.read_text()


def test_tests(project):
    project.run("make", "test")


def test_lint(project):
    project.run("make", "lint")


def test_site(project, site, mails):
    """A board, a pin and a comment, as their owner, another visitor and a program see them."""
    owner, visitor, program = (Visitor(site.url) for _ in range(3))

    owner.sign_up("grace")
    assert "<h1>Boats</h1>" in owner.submit("/pins/boards/add/", title="Boats").text
    refused = {"picture": ("boat.gif", b"<script>")}
    with pytest.raises(AssertionError, match="aria-invalid"):
        owner.submit("/pins/boards/1/add/", refused, title="A script")
    board = owner.submit("/pins/boards/1/add/", {"picture": ("boat.gif", GIF)}, title="A boat", text="Of wood")
    assert "A boat is on the board." in board.text
    picture = re.search(r'<img src="(/media/pins/[0-9a-f]{32}\.gif)"', board.text)[1]
    assert program.open(picture).content == GIF

    assert visitor.open("/pins/1/comment/").url == f"{site.url}/accounts/login/?next=/pins/1/comment/"
    visitor.sign_up("ada")
    pin = visitor.submit("/pins/1/comment/", text="Nice, as https://example.com")
    assert '<a href="https://example.com" rel="nofollow">' in pin.text
    (mail,) = wait_until(lambda: mails.mails)
    assert (mail["To"], mail["Subject"]) == ("grace@example.com", "A comment on A boat")
    assert f"{site.url}/pins/1/" in mail.get_content()
    assert visitor.open("/pins/boards/1/export/").status_code == 404

    _, row = csv.reader(owner.open("/pins/boards/1/export/").content.decode("utf-8-sig").splitlines())
    assert row[:2] == ["A boat", "Of wood"]
    (found,) = program.open("/pins/api/").json()["pins"]
    assert (found["title"], found["picture"]) == ("A boat", picture)
    assert not program.cookies

    addresses = project.manage("shell", "--no-imports", "-c", ADDRESSES).stdout.split()
    addresses = [path for path in addresses if re.match("/($|accounts/|admin/|pins/)", path)]
    assert len(addresses) > 50
    for path in addresses:
        page = owner.open(path, allow_redirects=False)
        said = page.headers["Cache-Control"]
        assert page.status_code < 500, path
        if path in PUBLIC:
            assert "public" in said, path
            assert "Set-Cookie" not in page.headers, path
            assert page.content == program.open(path).content, path
        else:
            assert "private" in said or "no-store" in said, f"{path}: {said}"
            assert "public" not in said, path
    assert not program.cookies
    assert "You are logged in as grace" in owner.open("/accounts/").text


def test_every_view_behind_nginx(project, site, folder):
    """Who is logged in, has a message or sends a token leaves nothing of his for anybody else."""
    owner = Visitor(site.url)
    owner.sign_up("somebody")
    add = f"{owner.submit('/pins/boards/add/', title='Kites').url}add/"
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', owner.open(add.removeprefix(site.url)).text)[1]
    form, files = {"csrfmiddlewaretoken": token, "title": "A kite"}, {"picture": ("kite.gif", GIF)}
    owner.post(add, form, files=files, allow_redirects=False, timeout=30)  # the message stays in its cookie
    cookies = {name: f"{name}={value}" for name, value in owner.cookies.items()}
    assert cookies.keys() >= {"sessionid", "messages"}
    people = [
        {"Cookie": cookies["sessionid"]},
        {"Cookie": cookies["messages"]},
        {"Authorization": "Token x"},
        {"Cookie": "; ".join(cookies.values()), "Authorization": "Token x"},
    ]
    addresses = project.manage("shell", "--no-imports", "-c", STAFF + ADDRESSES).stdout.split()
    addresses = [path for path in addresses if re.match("/($|accounts/|admin/|pins/)", path)]
    (folder / "nginx").mkdir()
    certify(folder / "nginx")
    nginx = Nginx(project, folder / "nginx", CHANGES, port=int(site.url.rpartition(":")[2]))
    try:
        assert b"You are logged in as somebody" in nginx.ask("/accounts/", headers=people[0]).data

        assert nobody_gets_what_is_somebodys(nginx, addresses, people, SECRETS) == PUBLIC
    finally:
        nginx.stop()


def test_loadtest(project):
    ran = project.run("make", "loadtest", "USERS=10", "DURATION=3", "P95=1500")

    assert {"/pins/", "/pins/boards/", "/pins/api/"} < set(re.findall(r"^GET (\S+) +\d+ +0 ", ran.stdout, re.MULTILINE))
