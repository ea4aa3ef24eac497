"""The site on an ASGI server, gunicorn's own, with asgi.py and the deploy settings as shipped, on a real PostgreSQL."""

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import Load, Postgres, Relay, Site, wait_until

WORKERS = 2
MAX_CONNECTIONS = 20
HUNG, MARGIN = 0.5 + 2, 2.5  # seconds: until a server that hangs is known to, and what a busy machine may add

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'my_project'"
SLEEPING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"

URLS = """
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from my_project.urls import handler500


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return str(cursor.fetchone()[0])


def rows(request):
    return HttpResponse(get_user_model().objects.count())


async def async_rows(request):
    return HttpResponse(await get_user_model().objects.acount())


def sleep(request):
    return HttpResponse(execute("SELECT pg_sleep(30)"))


async def async_sleep(request):
    return HttpResponse(await sync_to_async(execute)("SELECT pg_sleep(30)"))


async def stream(request):
    async def pieces():
        yield await sync_to_async(execute)("SELECT 'first'")
        yield await sync_to_async(execute)("SELECT pg_sleep(30)")

    return StreamingHttpResponse(pieces())


rows.csrf_exempt = async_rows.csrf_exempt = True
urlpatterns = [
    path("rows/", rows),
    path("async/rows/", async_rows),
    path("sleep/", sleep),
    path("async/sleep/", async_sleep),
    path("stream/", stream),
]
"""


@pytest.fixture(scope="module")
def postgres(default_project, folder):
    server = Postgres(default_project.python, folder, max_connections=MAX_CONNECTIONS)
    server.control("start")
    try:
        server.execute("CREATE DATABASE site")
        yield server
    finally:
        server.control("stop", "-m", "immediate")


@pytest.fixture(scope="module")
def relay(postgres):
    return Relay(postgres.port)


@pytest.fixture(scope="module")
def site(default_project, folder, postgres, relay):
    site = Site(default_project, folder, URLS, DATABASE_URL=postgres.url("site", relay.port), WORKERS=WORKERS)
    default_project.manage("migrate", **site.environment)
    try:
        site.start("/rows/", "--worker-class=asgi", "my_project.asgi")
        yield site
    finally:
        site.stop()


def test_connections_end_with_their_requests(site, postgres):
    with Load(site, *["/rows/", "/async/rows/"] * 3) as load:
        wait_until(lambda: len(load.answers) > 20 * MAX_CONNECTIONS, 60)
    assert set(load.statuses("/rows/", "/async/rows/")) == {200}
    # Each worker keeps one, to probe the server on.
    wait_until(lambda: postgres.execute(SESSIONS)[0][0] == WORKERS)


@pytest.mark.parametrize("path", ["/rows/", "/async/rows/"])
def test_body_that_no_view_reads(site, path):
    """The server has received it before security() reads what the view has left of it."""
    assert {site.get(path, "POST", b"x" * (9 << 20))[0] for _ in range(5)} == {200}


def lines(site):
    """Return the lines of requests, by the ids of these."""
    found = [json.loads(line) for line in site.log.read_text().splitlines() if line.startswith("{")]
    return {line["request_id"]: line for line in found if "route" in line}


def test_each_request_has_a_line_of_its_own_in_the_log(site):
    ids = {f"request-{number:02}": path for number, path in enumerate(["/rows/", "/async/rows/"] * 20)}
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda id: site.get(ids[id], **{"X-Request-ID": id}), ids))
    assert [headers["X-Request-ID"] for _, _, headers, _ in answers] == list(ids)
    wait_until(lambda: lines(site).keys() >= ids.keys())
    logged = {id: (line["route"], line["status"], line["queries"]) for id, line in lines(site).items() if id in ids}
    assert logged == {id: (path, 200, 1) for id, path in ids.items()}


def read_stream(site):
    """Return what a stream that breaks off ends with."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=40)
    connection.request("GET", "/stream/")
    try:
        return connection.getresponse().read()
    except http.client.IncompleteRead as error:
        return error
    finally:
        connection.close()


def test_no_request_waits_for_a_hung_server(site, postgres, relay):
    with ThreadPoolExecutor() as clients:
        pages = [clients.submit(site.get, path) for path in ("/sleep/", "/async/sleep/")]
        stream = clients.submit(read_stream, site)
        wait_until(lambda: len(postgres.execute(SLEEPING)) == 3)
        relay.flowing.clear()
        start = time.monotonic()
        try:
            assert [page.result()[0] for page in pages] == [503, 503]
            assert isinstance(stream.result(), http.client.IncompleteRead)
            assert time.monotonic() - start < HUNG + MARGIN
            assert site.get("/livez")[0] == 200
        finally:
            relay.flowing.set()
    wait_until(lambda: site.get("/rows/")[0] == 200)


def test_connections_of_readers_who_left_end(site, postgres):
    wait_until(lambda: not postgres.execute(SLEEPING))
    paths = ("/sleep/", "/async/sleep/", "/stream/")
    clients = [http.client.HTTPConnection("127.0.0.1", site.port) for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        client.request("GET", path)
    wait_until(lambda: len(postgres.execute(SLEEPING)) == len(paths))
    for client in clients:
        client.close()
    wait_until(lambda: postgres.execute(SESSIONS)[0][0] == WORKERS)
