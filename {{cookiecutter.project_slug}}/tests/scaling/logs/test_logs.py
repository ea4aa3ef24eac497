import json
import logging
import re

import pytest
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.urls import path

from {{ cookiecutter.project_slug }}.scaling.logs import request_log
from {{ cookiecutter.project_slug }}.scaling.logs.lines import JSONFormatter, ReadableFormatter

logger = logging.getLogger("shop")


def page(request, pk):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [pk / 1000])
    cache.set("present", True)
    cache.get_many(["present", "missing"])
    logger.info("a page", extra={"order": pk})
    return HttpResponse("page")


def broken(request):
    raise ValueError("broken")


urlpatterns = [path("page/<int:pk>/", page), path("broken/", broken)]


@pytest.fixture
def ask(client, capfd, db):
    """Return a function that asks for an address and returns the response, and the lines that were logged."""
    client.raise_request_exception = False

    def logged():
        request_log.log_finished()
        for handler in logging.getLogger().handlers:
            handler.flush()
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    def ask(address, **headers):
        logged()
        return client.get(address, headers=headers), logged()

    return ask


def test_line(ask):
    response, lines = ask("/page/5/?password=secret")
    (extra,) = [line for line in lines if line["logger"] == "shop"]
    line = lines[-1]

    assert line["request_id"] == extra["request_id"] == response["X-Request-ID"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/page/<int:pk>/", 200)
    assert line["queries"] > 0
    assert line["cache_queries"] > 1
    assert line["ms"] > line["database_ms"] > 5
    assert (line["cache_hits"], line["cache_misses"]) == (1, 1)
    assert (extra["level"], extra["logger"], extra["message"], extra["order"]) == ("info", "shop", "a page", 5)
    assert "secret" not in str(line)


def test_slow_query(ask):
    _, (slow, *_) = ask("/page/60/")

    assert slow["sql"] == "SELECT pg_sleep(%s)"
    assert slow["code"] == f"tests/scaling/logs/test_logs.py:{page.__code__.co_firstlineno + 2} page"


def test_slow_query_as_text(client, caplog, db):
    client.get("/page/60/")
    (slow,) = [record for record in caplog.records if record.name == request_log.__name__]

    assert ReadableFormatter().format(slow).endswith(b" page\nSELECT pg_sleep(%s)\n")


def test_slow_query_of_a_package(ask, monkeypatch):
    """As Django's for the session: no line of the project leads to it, so none is named."""
    monkeypatch.setattr(request_log, "PROJECT", "/elsewhere/")
    _, (slow, *_) = ask("/page/60/")

    assert slow["code"] is None
    assert re.fullmatch(r"Slow query: \d+ ms", slow["message"])


def test_exception(ask):
    _, (error, line) = ask("/broken/")

    assert error["exception"].endswith("ValueError: broken")
    assert line["status"] == 500


@pytest.mark.parametrize(("given", "kept"), [("a1b2c3d4", True), ("short", False), ('a1b2c3d4"', False)])
def test_request_id(ask, given, kept):
    response, _ = ask("/page/0/", **{"X-Request-ID": given})

    assert (response["X-Request-ID"] == given) is kept


@pytest.mark.parametrize("extra", [{"level": "x", "time": "x", "logger": "x"}, {"status": "open"}, {"status": None}])
def test_extra_of_any_name(extra):
    """Neither does it replace what every line has, nor does a line get lost."""
    own = {"name": "shop", "levelno": logging.INFO, "levelname": "INFO", "msg": "sold"}
    record = logging.makeLogRecord(own | extra)
    line = json.loads(JSONFormatter().format(record))

    assert (line["level"], line["logger"], line["message"]) == ("info", "shop", "sold")
    assert line["time"] != "x"
    assert ReadableFormatter().format(record) == b"sold\n"


def test_time_of_half_a_character():
    """Lines are sorted by it, so all have it in one form."""
    record = {"levelname": "INFO", "created": 0.5}
    times = [
        json.loads(JSONFormatter().format(logging.makeLogRecord(record | {"msg": text})))["time"]
        for text in ("sold", "\udce4")
    ]

    assert times[0] == times[1]
