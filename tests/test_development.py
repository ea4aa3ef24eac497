"""Development machines have pages below /dev/, which say what is wrong and hang with nothing; servers have none."""

import contextlib
import re
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from conftest import Server, clean_environment, free_port
from test_browser import visit
from test_options import ON
from test_server import wait_until

PAGES = ["/dev/", "/dev/samples/", "/dev/mail/", "/dev/docs/README.md"]

# Plain mail with a link, and HTML that would change the page.
SEND = """
from django.core.mail import EmailMultiAlternatives

message = EmailMultiAlternatives("A new password", "Go to http://127.0.0.1:8000/reset/a-b/", None, ["ada@example.com"])
message.attach_alternative('<a href="/reset/">here</a><script>document.body.append("it ran")</script>', "text/html")
message.send()
"""


@contextlib.contextmanager
def black_hole():
    """Accept connections and never answer; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def make_dev(project, log, **environment):
    address = f"127.0.0.1:{free_port()}"
    command = ["make", "dev", f"ADDRESS={address}"]
    server = Server(command, address, log, cwd=project.path, env=clean_environment(**environment))
    try:
        yield server.wait_until_up()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def everything(set_up, tmp_path_factory):
    return set_up(**ON).copy(tmp_path_factory.mktemp("development"))


@pytest.fixture(scope="module")
def development(everything, tmp_path_factory):
    with make_dev(everything, tmp_path_factory.mktemp("log") / "make-dev.log") as server:
        yield server


@pytest.fixture(scope="module")
def deployed(default_project, database_url, tmp_path_factory):
    """The default project with the settings of servers."""
    folder = tmp_path_factory.mktemp("deployed")
    environment = default_project.configure(
        folder, ALLOWED_HOSTS=["127.0.0.1"], DATABASE_URL=database_url, HTTPS=False, WORKERS=1
    )
    default_project.manage("collectstatic", "--no-input", **environment)
    address = f"127.0.0.1:{free_port()}"
    command = [default_project.python, "-m", "gunicorn", "--config=deploy/gunicorn.conf.py", f"--bind={address}"]
    log, environment = folder / "gunicorn.log", clean_environment(**environment)
    server = Server(command, address, log, cwd=default_project.path, env=environment).wait_until_up()
    yield server
    server.stop()


def parts(server, path="/dev/"):
    """Return the state of each part, as a page says."""
    rows = r'<th scope="row">([^<]+)</th>\s*<td><strong class="(\w+)">'
    return dict(re.findall(rows, server.get(path).text))


@pytest.mark.parametrize("path", PAGES)
def test_page(development, path):
    assert development.get(path).status_code == 200


@pytest.mark.parametrize("path", [*PAGES, "/dev/csp/"])
def test_no_page_on_servers(deployed, path):
    assert deployed.get(path).status_code == 404


def test_home_on_servers(deployed):
    """Strangers get the name and the description, all of them the same: shared caches may keep it."""
    response = deployed.get("/", headers={"Accept-Language": "de", "Cookie": "sessionid=c3dd4acbf1e94a6c"})

    assert '<html lang="en-us">' in response.text
    assert "<h1>My Project</h1>" in response.text
    assert "A site that carries traffic." in response.text
    assert not re.search("createsuperuser|/dev/|/admin/|What to do", response.text)
    assert "report-uri" not in response.headers["Content-Security-Policy"]
    assert not {"Vary", "Set-Cookie"} & response.headers.keys()


@pytest.mark.parametrize("path", ["/", "/dev/"])
def test_status(development, path):
    """What was chosen, and is there: Celery too, where a Redis can be started for it."""
    others = dict.fromkeys(("Database", "Mail", "Uploaded files"), "works")
    others |= dict.fromkeys(("Cache", "Replicas", "CDN"), "off")
    possible = [others | dict.fromkeys(("Broker", "Worker", "Beat"), celery) for celery in ("works", "off")]

    wait_until(lambda: parts(development, path) in possible, development, 30)


def test_status_of_what_hangs(everything, tmp_path):
    """A broker and a mail server that accept connections and never answer."""
    with black_hole() as broker, black_hole() as mail:
        environment = {
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{broker}/0",
            "EMAIL_URL": f"smtp://127.0.0.1:{mail}",
        }
        with make_dev(everything, tmp_path / "log", **environment) as server:
            start = time.monotonic()
            found = parts(server)
            seconds = time.monotonic() - start

    assert {found[name] for name in ("Broker", "Worker", "Mail")} == {"fails"}
    assert {found[name] for name in ("Database", "Uploaded files")} == {"works"}
    assert seconds < 5


def test_mail(everything, development, tmp_path):
    everything.manage("shell", "--no-imports", "--command", SEND)

    address = re.search(r'href="(/dev/mail/[^"]+)">A new password<', development.get("/dev/mail/").text)[1]
    page = development.get(address).text
    html, console = visit(f"{development.url}{address}html/", tmp_path)

    assert 'href="http://127.0.0.1:8000/reset/a-b/"' in page
    assert f'src="{address}html/"' in page
    assert ">here</a>" in html
    assert "it ran</body>" not in html
    assert any("sandboxed" in line or "Content Security Policy" in line for line in console)


def test_refused_by_the_policy_is_in_the_terminal(development, everything, tmp_path):
    """Chromium says which directive refused what, and the line of the page that it came from."""
    home = everything.package / "templates" / "home.html"
    kept = home.read_text()
    number = len(development.get("/").text.partition("<h1>")[0].splitlines())
    home.write_text(kept.replace("<h1>", '<script>document.title = "x"</script><h1>'))
    try:  # runserver looks once a second what has been edited
        wait_until(lambda: "document.title" in development.get("/").text, development, 10)
        document, _ = visit(f"{development.url}/", tmp_path)
    finally:
        home.write_text(kept)

    line = f"Content Security Policy: script-src-elem refuses inline on /, from /:{number}\n"
    wait_until(lambda: line in development.log.read_text(), development, 10)
    assert "<title>x<" not in document


class Provider(BaseHTTPRequestHandler):
    """Stands in for the API of Postmark."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["X-Postmark-Server-Token"], body))
        answer = b'{"ErrorCode": 0, "Message": "OK", "MessageID": "1", "To": "ada@example.com"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def test_mail_by_the_api_of_a_provider(default_project, tmp_path):
    """With the newest django-anymail, whose name the error says where it is missing."""
    token = "?server_token=secret-token"
    send = "from django.core.mail import send_mail; send_mail('Subject', 'Text', None, ['ada@example.com'])"
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as provider:
        provider.received = []
        Thread(target=provider.serve_forever, daemon=True).start()
        url = f"anymail+postmark://{token}&api_url=http://127.0.0.1:{provider.server_port}/"
        with default_project.database() as database:
            environment = default_project.configure(tmp_path, EMAIL_URL=url, DATABASE_URL=database)
            without = default_project.manage("check", check=False, **environment)
            target = ["--target", tmp_path / "packages", "django-anymail"]
            default_project.run("uv", "pip", "install", "--quiet", "--no-deps", *target)
            default_project.run("uv", "pip", "install", "--quiet", "--target", tmp_path / "packages", "requests")
            path = {"PYTHONPATH": str(tmp_path / "packages")}
            shown = default_project.manage("config", "show", **environment, **path).stdout
            default_project.manage("shell", "--no-imports", "--command", send, **environment, **path)
            environment = default_project.configure(tmp_path, EMAIL_URL=f"anymail+pigeon://{token}")
            unknown = default_project.manage("check", check=False, **environment, **path)
        provider.shutdown()

    assert "needs django-anymail, which is not installed" in without.stdout
    assert 'found the provider "pigeon", expected one of: brevo,' in unknown.stdout
    assert "secret-token" not in shown + without.stdout + unknown.stdout
    [(address, sent_token, body)] = provider.received
    assert (address, sent_token) == ("/email", "secret-token")
    assert b"ada@example.com" in body
