"""What replicas bring and cost: pages per second with none, one and two of them, and the router's time per query.

    python benchmarks/replicas.py path/to/a/project    # one rendered with use_replica that `make setup` has set up

Each site is gunicorn (gthread, 1 worker, 16 threads) on the same primary and 0 to 2 streaming replicas, all on this
machine; the rounds take turns, and figures are medians. All servers share the cores, so a page that only costs time of
the processor gains nothing here. The other page stands for servers that are busy: its query holds a lock of its server
for 10 ms, so that no server executes more than 100 of them per second.
"""

import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conftest import Project
from servers import Postgres, Site

ROUNDS, SECONDS, CLIENTS = 3, 3, 12

URLS = """
from django.contrib.auth.models import Group
from django.db.models import Func, IntegerField
from django.http import HttpResponse
from django.urls import path

BUSY = Func(template="(SELECT 1 FROM pg_advisory_xact_lock(1), pg_sleep(0.01))", output_field=IntegerField())

urlpatterns = [
    path("short", lambda request: HttpResponse(Group.objects.count())),
    path("busy", lambda request: HttpResponse(Group.objects.annotate(busy=BUSY).get(pk=1).busy)),
]
"""

ROUTER = """
import statistics, timeit
from django.contrib.auth.models import Group
from django.db import router
from my_project.scaling.db.replicas import reading_from_primary, reading_from_replicas

def cost():
    queryset = Group.objects.all()
    return min(timeit.repeat(lambda: queryset.db, number=20_000, repeat=9)) / 20_000 * 1e6

with reading_from_replicas():
    assert Group.objects.all().db.startswith("replica")
    print(f"{cost():.2f} µs on a replica")
with reading_from_primary():
    print(f"{cost():.2f} µs on the primary, in a request")
print(f"{cost():.2f} µs on the primary, elsewhere")
router.routers = []
print(f"{cost():.2f} µs without a router")
"""


def ask(site, path, end, taken):
    while time.monotonic() < end:
        # Each page is a new visitor's, as each visitor keeps to one replica.
        status, _, _, seconds = site.get(path, **{"User-Agent": str(time.monotonic_ns())})
        assert status == 200, status
        taken.append(seconds)


def measure(site, path):
    """Return pages per second."""
    taken, end = [], time.monotonic() + SECONDS
    clients = [threading.Thread(target=ask, args=[site, path, end, taken]) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return len(taken) / SECONDS


def main(project):
    folder = Path(tempfile.mkdtemp(prefix="benchmark-replicas-"))
    folder.chmod(0o755)
    started, sites = [], []
    try:
        primary = Postgres(project.python, folder)
        started.append(primary)
        primary.control("start")
        primary.execute("CREATE DATABASE site")
        started += [primary.replica(folder) for _ in range(2)]
        urls = [primary.url("site", server.port) for server in started]
        for count in range(3):
            (home := folder / f"site-{count}").mkdir()
            values = {"DATABASE_URL": urls[0], "REPLICA_DATABASE_URLS": urls[1 : count + 1]}
            sites.append(Site(project, home, URLS, **values, WORKERS=1, THREADS=16))
        sites[0].command("python", "manage.py", "migrate")
        primary.execute("INSERT INTO auth_group (id, name) VALUES (1, 'one')", "site")
        for site in sites:
            site.start("/short")
        time.sleep(1)
        print(f"{'':<14}{'short query':>14}{'busy servers':>16}")
        rounds = [[(measure(site, "/short"), measure(site, "/busy")) for site in sites] for _ in range(ROUNDS)]
        for count, columns in enumerate(zip(*rounds, strict=True)):
            short, busy = (statistics.median(column) for column in zip(*columns, strict=True))
            print(f"{count} replicas{short:>15.0f}/s{busy:>14.0f}/s")
        print(sites[2].command("python", "manage.py", "shell", "--no-imports", "-c", ROUTER).stdout)
    finally:
        for site in sites:
            site.stop()
        for server in started:
            server.control("stop", "-m", "immediate")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Project(Path(sys.argv[1]).resolve()))
