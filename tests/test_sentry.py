"""With `use_sentry`, errors reach Sentry without personal data and nobody waits for it; without, there is no trace."""

import gzip
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import brotli
import pytest
from conftest import clean_environment, free_port
from servers import Redis, wait_until
from test_server import Site

VIEWS = """

import logging

from django.db import DatabaseError, connection
from django.http import HttpResponse
from .accounts.models import User

logger = logging.getLogger("shop")


def fail(request):
    secret = request.POST.get("password")
    raise ValueError("deliberate")


def duplicate(request):
    for _ in range(2):
        User.objects.create(username=request.GET["name"])


# What PostgreSQL quotes of a row or of a parameter: below the first line, and in it.
STATEMENTS = {
    "duplicate": "INSERT INTO accounts_user (username, password, first_name, last_name, email, is_superuser, is_staff,"
    " is_active, date_joined) VALUES (%s, '', '', '', '', false, false, false, now())",
    "null": "INSERT INTO accounts_user (username) VALUES (%s)",
    "number": "SELECT %s::int",
    "range": "SELECT %s, repeat('12345', 3)::int",
    "day": "SELECT %s::date",
    "column": "SELECT no_such_column FROM accounts_user WHERE username = %s",
}


def error(request):
    name = request.GET["name"]
    try:
        with connection.cursor() as cursor:
            cursor.execute(STATEMENTS[request.GET["statement"]], [name])
    except DatabaseError as error:
        logger.warning("not saved: %s", error, extra={"row": name})
        logger.info(f"again: {error}")
        match request.GET["way"]:
            case "logged":
                logger.error("not saved: %s", error, extra={"row": name})
            case "logged with its traceback":
                logger.exception("not saved: %r", error)
            case "logged as a text":
                logger.error(f"not saved: {error!r}")
            case "logged as an object":
                logger.error(error, stack_info=True)
            case "chained":
                raise RuntimeError(f"not saved: {error}") from error
            case "not chained":
                raise RuntimeError(f"not saved: {error}") from None
            case _:
                raise
    return HttpResponse()


def session(request):
    User.objects.filter(username=request.session.get("name", "")).exists()
    return fail(request) if "fail" in request.GET else HttpResponse("ok")


fail.csrf_exempt = True
urlpatterns += [path("fail", fail), path("duplicate", duplicate), path("plain", lambda request: HttpResponse("ok"))]
urlpatterns += [path("error", error), path("session", session)]
"""
SECRETS = ("hunter2", "c00kie", "t0ken", "203.0.113.9")

# As in VIEWS; and how an error becomes a report, with what the report begins with.
STATEMENTS = ("duplicate", "null", "number", "range", "day", "column")
WAYS = {
    "logged": "not saved",
    "logged with its traceback": "not saved",
    "logged as a text": "not saved",
    "logged as an object": "",
    "chained": "not saved",
    "not chained": "not saved",
    "raised": "",
}


class Ingest(ThreadingHTTPServer):
    """An HTTP server in Sentry's place, which keeps the items of the envelopes that it gets."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Envelope)
        self.items = []
        self.dsn = f"http://publickey@127.0.0.1:{self.server_port}/7"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def of_type(self, kind, count=1, seconds=10):
        """Return the items of a type once there are so many, or what came until then."""
        deadline = time.monotonic() + seconds
        while True:
            found = [item for header, item in self.items if header["type"] == kind]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


class Envelope(BaseHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        decompress = {"br": brotli.decompress, "gzip": gzip.decompress}.get(self.headers["Content-Encoding"], bytes)
        data = decompress(data)
        lines = [json.loads(line) for line in data.splitlines() if line]
        self.server.items += zip(lines[1::2], lines[2::2], strict=True)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def with_sentry(set_up):
    return set_up(use_sentry=True, use_redis=True)


@pytest.fixture(scope="module")
def start(with_sentry, tmp_path_factory):
    """Return a function that starts gunicorn on a copy of the project with VIEWS, and with a DSN."""
    folder = tmp_path_factory.mktemp("sentry")
    project = with_sentry.copy(folder)
    path = project.path
    with (path / path.name / "urls.py").open("a") as urls:
        urls.write(VIEWS)
    module = path / path.name / "scaling" / "logs" / "sentry.py"
    traced = module.read_text().replace("TRACED = 0.01", "TRACED = 1")
    assert traced != module.read_text()
    module.write_text(traced)
    started = []
    redis = Redis(folder).start()
    with with_sentry.database() as url:

        def start(dsn):
            values = {"ALLOWED_HOSTS": ["example.com"], "DATABASE_URL": url, "WORKERS": 1, "SENTRY_DSN": dsn}
            values |= {"TRUSTED_PROXIES": ["127.0.0.1"], "ENVIRONMENT": "staging", "CACHE_REDIS_URL": redis.url()}
            environment = project.configure(tmp_path_factory.mktemp("config"), **values)
            site = Site(project, clean_environment(**environment), folder / f"{len(started)}.log").wait()
            started.append(site)
            return site

        environment = project.configure(folder, DATABASE_URL=url)
        project.manage("migrate", **environment)
        project.manage("collectstatic", "--no-input", **environment)
        start.project, start.url = project, url
        yield start
        for site in started:
            if site.process.poll() is None:
                site.stop()
    redis.stop()


@pytest.fixture(scope="module")
def reporting(start):
    """A site with a user, and the server that it reports to."""
    ingest = Ingest()
    site = start(ingest.dsn)
    assert site.get("/duplicate?name=ada.lovelace").status == 500
    return ingest, site


def test_check_deploy_is_silent(start, tmp_path):
    values = {"DATABASE_URL": start.url, "SENTRY_DSN": "https://key@sentry.example/1"}
    environment = start.project.configure(tmp_path, **values)

    ran = start.project.manage("check", "--deploy", "--fail-level", "WARNING", **environment)

    assert "no issues" in ran.stdout
    assert "sentry.example" not in start.project.manage("config", "show", **environment).stdout


def test_off_without_dsn(start, tmp_path):
    code = "import django, sys; django.setup(); print('sentry_sdk' in sys.modules)"
    environment = start.project.configure(tmp_path)

    assert start.project.run(start.project.python, "-c", code, **environment).stdout.strip() == "False"


@pytest.mark.parametrize(
    "dsn", ["", "errors.test", "https://errors.test/1", "https://key@errors.test/", "https://key@errors.test/x"]
)
def test_wrong_dsn_is_named(start, tmp_path, dsn):
    environment = start.project.configure(tmp_path, SENTRY_DSN=dsn)

    ran = start.project.manage("config", "check", check=False, **environment)

    assert ran.returncode == 1
    assert "SENTRY_DSN: found" in ran.stdout
    assert "expected a URL such as https://key@sentry.example/1" in ran.stdout
    assert dsn == "" or dsn not in ran.stdout.replace(environment["DJANGO_CONFIG"], "")


def test_error_is_reported_without_personal_data(start):
    ingest = Ingest()
    site = start(ingest.dsn)
    headers = {"Cookie": "sessionid=c00kie", "Authorization": "Bearer t0ken", "X_Forwarded_For": "203.0.113.9"}
    body = "username=ada.lovelace&password=hunter2"

    answer = site.request(
        "POST",
        "/fail?key=t0ken",
        body=body,
        Referer="https://example.com/?key=t0ken",
        Content_Type="application/x-www-form-urlencoded",
        **headers,
    )
    duplicate = site.get("/duplicate?name=ada.lovelace", **headers)
    errors = ingest.of_type("event", 2)
    values = {error["exception"]["values"][-1]["type"]: error for error in errors}

    assert (answer.status, duplicate.status) == (500, 500)
    assert values.keys() == {"ValueError", "IntegrityError"}
    event = values["ValueError"]
    assert event["request"] == {"method": "POST", "url": "http://example.com/fail"}  # between proxy and gunicorn
    assert event["exception"]["values"][0]["value"] == "deliberate"
    assert event["exception"]["values"][0]["stacktrace"]["frames"][-1]["function"] == "fail"
    assert (event["environment"], event["release"]) == ("staging", "my_project@0.1.0")
    site.stop()
    text = json.dumps(ingest.items)
    assert [secret for secret in (*SECRETS, "ada.lovelace") if secret in text] == []
    assert ingest.of_type("transaction")


@pytest.mark.parametrize("way", WAYS)
def test_values_of_rows_stay_here(reporting, way):
    """However an error of PostgreSQL gets to Sentry, which shows what failed all the same."""
    ingest, site = reporting
    for statement in STATEMENTS:
        ingest.items.clear()
        site.get("/error?" + urlencode({"statement": statement, "way": way, "name": "ada.lovelace"}))
        (event,) = ingest.of_type("event")

        messages = [error["value"] for error in event.get("exception", {}).get("values", [])]
        messages += [event["logentry"]["message"]] if "logentry" in event else []
        assert any(message.startswith(WAYS[way]) for message in messages)
        assert "" not in messages
        assert [value for value in ("ada.lovelace", "123451234512345") if value in json.dumps(ingest.items)] == []


def test_session_keys_stay_here(reporting):
    """They are in the keys of Redis."""
    ingest, site = reporting
    site.get("/session", Cookie="sessionid=c00kiec00kiec00kie")
    traced = wait_until(lambda: [item for item in ingest.of_type("transaction") if item["transaction"] == "/session"])
    ingest.items.clear()
    site.get("/session?fail", Cookie="sessionid=c00kiec00kiec00kie")
    (event,) = ingest.of_type("event")

    spans = {(span["op"], span["description"].partition(" ")[0]) for span in traced[0]["spans"]}
    assert spans >= {("db", "SELECT"), ("db.redis", "db.redis")}
    assert any("SELECT" in crumb["message"] for crumb in event["breadcrumbs"]["values"])
    assert [secret for secret in SECRETS if secret in json.dumps([traced, event])] == []
    assert [secret for secret in SECRETS if secret in json.dumps(ingest.items)] == []


def test_probes_and_static_files_are_not_traced(start):
    ingest = Ingest()
    site = start(ingest.dsn)
    manifest = json.loads((start.project.path / "staticfiles" / "staticfiles.json").read_text())["paths"]

    for path in ("/livez", "/readyz", f"/static/{manifest['css/site.css']}", "/plain"):
        assert site.get(path).status == 200
    traced = {item["transaction"] for item in ingest.of_type("transaction")}
    site.stop()

    assert traced == {"/plain"}
    assert {item["transaction"] for item in ingest.of_type("transaction")} == {"/plain"}


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_unreachable_sentry_delays_nothing(start, kind):
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port), backlog=1) if kind == "silent" else None
    took = []
    begun = time.monotonic()
    site = start(f"http://publickey@127.0.0.1:{port}/7")
    assert time.monotonic() - begun < 20  # what it takes on a busy machine
    try:
        for _ in range(150):  # more than the queue holds
            started = time.monotonic()
            assert site.get("/fail").status == 500
            took.append(time.monotonic() - started)
        assert site.get("/plain").status == 200
    finally:
        started = time.monotonic()
        site.process.terminate()
        assert site.process.wait(30) == 0
        # DRAIN, and what the process waits for Sentry.
        assert time.monotonic() - started < 5 + 5
        if listener:
            listener.close()

    assert max(took) < 1
