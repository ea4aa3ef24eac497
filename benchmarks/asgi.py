"""What an ASGI server costs pages, and what it needs for a reader who waits.

    .venv/bin/python benchmarks/asgi.py [--seconds 2] [--rounds 5] [--streams 500]

The project with the default answers and deploy settings, in one process: on gunicorn with four threads, as shipped, on
uvicorn with the options of docs/asgi.md, and on gunicorn's own ASGI worker. Load and views, which are synchronous, are
those of throughput.py; the servers take turns, and figures are medians.
"""

import argparse
import os
import shutil
import socket
import statistics
import sys
import tempfile
from pathlib import Path

from peers import FILL, HOST, OPTIONS, UV, VIEWS, Project, Projects, run
from throughput import load

URLS = """
import asyncio

from django.http import StreamingHttpResponse
from django.urls import path

from benchmark_rows.urls import urlpatterns


async def stream(request):
    async def pieces():
        yield "data: begun\\n\\n"
        await asyncio.sleep(3600)

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


urlpatterns = [*urlpatterns, path("stream/", stream)]
"""
SERVERS = {
    "gunicorn": ["deploy/web.py", *OPTIONS],
    "uvicorn": [
        *["-m", "uvicorn", "my_project.asgi:application", "--port={port}"],
        *["--lifespan=off", "--no-access-log", "--no-proxy-headers", "--timeout-graceful-shutdown=1"],
    ],
    "gunicorn, ASGI": [
        *["-m", "gunicorn", "--config=deploy/gunicorn.conf.py", *OPTIONS],
        *["--worker-class=asgi", "my_project.asgi"],
    ],
}


def build(folder, factory):
    """Return the project on each server."""
    factory.create_database("ours")
    project = factory.ours(folder)
    run(UV, "pip", "install", "--python", project.python, "uvicorn", cwd=folder)
    (folder / "asgi_urls.py").write_text(URLS)
    (folder / "asgi_settings.py").write_text('from ours_settings import *\nROOT_URLCONF = "asgi_urls"\n')
    project.prepare()
    project.run("manage.py", "shell", "--no-imports", "-c", FILL)
    environment = {"DJANGO_CONFIG": project.environment["DJANGO_CONFIG"], "DJANGO_SETTINGS_MODULE": "asgi_settings"}
    return [Project(name, project.folder, command, environment) for name, command in SERVERS.items()]


def memory_of_streams(server, count):
    """Return the kilobytes that a reader takes who waits for events."""
    before = server.memory()
    request = f"GET /stream/ HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\n\r\n".encode()
    readers = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(count)]
    for reader in readers:
        reader.sendall(request)
    for reader in readers:
        received = b""
        while b"data: begun" not in received:
            received += reader.recv(4096) or sys.exit(f"a stream of {server.name} broke off: {received}")
    load(server.port, "/plain/", "", requests=1)
    after = server.memory()
    for reader in readers:
        reader.close()
    return (after - before) * 1024 / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="of each view in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=500)
    options = parser.parse_args()
    os.environ["UV_PYTHON"] = os.path.realpath(sys.executable)

    folder = Path(tempfile.mkdtemp(prefix="asgi-"))
    folder.chmod(0o755)  # where root runs this, PostgreSQL is another user's
    factory, started = Projects(folder, None, None), []
    try:
        for server in build(folder, factory):
            started.append(server)
            server.start()
            for view in VIEWS:
                server.load(view, seconds=0.5)
        for _ in range(options.rounds):
            for view in VIEWS:
                for server in started:
                    server.measure(view, options.seconds)
        print(f"{'requests/s (of gunicorn)':<28}" + "".join(f"{server.name:>20}" for server in started))
        for view in VIEWS:
            rates = [statistics.median(server.rates[view]) for server in started]
            print(f"  {view:<26}" + "".join(f"{rate:>13.0f} ({rate / rates[0]:.2f})" for rate in rates))
        for server in started[1:]:
            kilobytes = memory_of_streams(server, options.streams)
            print(f"a reader who waits, of {options.streams} on {server.name}: {kilobytes:.0f} kB")
    finally:
        for server in started:
            server.stop()
        factory.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
