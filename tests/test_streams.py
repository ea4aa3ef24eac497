"""An ASGI server beside gunicorn, after what docs/asgi.md says, and nothing else, was done to a project."""

import contextlib
import http.client
import socket
import ssl
import subprocess
import time

import psycopg
import pytest
from conftest import Project, clean_environment
from servers import wait_until
from test_server import HOST, Proxied, certify
from test_third_party import apply, sections

READERS, SEMAPHORE, WORKERS, THREADS = 40, 4, 1, 2
HELD = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'my_project'"


class Reader:
    """Somebody who reads the stream of events, through nginx."""

    def __init__(self, site):
        context = ssl.create_default_context(cafile=site.folder / "fullchain.pem")
        client = socket.create_connection(("127.0.0.1", site.https), timeout=20)
        self.connection = http.client.HTTPConnection(HOST)
        self.connection.sock = context.wrap_socket(client, server_hostname=HOST)
        self.connection.request("GET", "/events/")

    def open(self):
        self.response = self.connection.getresponse()
        return self

    def event(self):
        """Wait for the next event, and return what it tells."""
        line, blank = self.response.readline(), self.response.readline()
        assert (line[:6], blank) == (b"data: ", b"\n")
        return int(line[6:])


@pytest.fixture(scope="module")
def project(cookies_session):
    """A project to which all has been done that the document says, up to the commands that start it."""
    project = Project(cookies_session.bake().project_path)
    blocks = sections((project.path / "docs" / "asgi.md").read_text())
    (*_, command), *more = blocks.pop("Starting and stopping")
    assert not more
    for section in blocks.values():
        apply(project, section)
    project.command = command.replace("python", str(project.python), 1)
    return project


@pytest.fixture(scope="module")
def site(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    certify(folder)
    with project.database() as url, contextlib.ExitStack() as stack:
        values = {"ALLOWED_HOSTS": [HOST], "DATABASE_URL": url, "WORKERS": WORKERS, "THREADS": THREADS}
        configured = project.configure(folder, **values)
        environment = clean_environment(**configured)
        site = Proxied(project, environment, folder, {"unix:/run/my_project/asgi": f"unix:{folder}/run/asgi"})
        site.environment = configured
        stack.callback(site.stop)
        command = ["sh", "-c", "exec " + project.command.replace("/run/my_project", f"{folder}/run")]
        log = stack.enter_context((folder / "uvicorn.log").open("w"))
        uvicorn = subprocess.Popen(command, cwd=project.path, env=environment, stdout=log, stderr=log)
        stack.callback(uvicorn.wait, 20)
        stack.callback(uvicorn.terminate)
        site.uvicorn, site.database = uvicorn, stack.enter_context(psycopg.connect(url, autocommit=True))
        wait_until((folder / "run" / "asgi.sock").exists)
        yield site.wait()


def test_streams(site, project):
    readers = [Reader(site) for _ in range(READERS)]
    assert {reader.open().event() for reader in readers} == {0}

    # All are open, and gunicorn is as free as before.
    assert site.probe("/readyz").status == 200
    account = {f"DJANGO_SUPERUSER_{name}": "ada" for name in ("USERNAME", "PASSWORD")}
    project.manage("createsuperuser", "--no-input", "--email=ada@example.com", **site.environment, **account)
    wait_until(lambda: {reader.event() for reader in readers} == {1})
    held = [site.database.execute(HELD).fetchone()[0] for _ in range(300) if not time.sleep(0.01)]
    assert 1 < max(held) <= SEMAPHORE + 1 + WORKERS * (THREADS + 1)


def test_stopping(site):
    reader = Reader(site).open()
    reader.event()
    site.uvicorn.terminate()
    site.uvicorn.wait(5)

    with contextlib.suppress(http.client.IncompleteRead):
        assert reader.response.read().count(b"data: ") < 5
    assert site.get("/events/").status == 502
