"""How the ways to keep connections to PostgreSQL compare: requests per second, p99, requests lost when they all die.

    python benchmarks/connections.py path/to/a/project    # one that `make setup` has set up

Each way serves the same one-query page with gunicorn (gthread, 1 worker, 4 threads) on the same PostgreSQL; the rounds
take turns. The load comes from 8 connections of one other process.
"""

import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conftest import Project
from servers import Postgres, Site
from test_database_outages import URLS

ROUNDS, SECONDS, CLIENTS = 3, 3, 8

DJANGO = '"ENGINE": "django.db.backends.postgresql", "CONN_HEALTH_CHECKS": '
POOL = '"CONN_MAX_AGE": 0, "OPTIONS": DATABASES["default"]["OPTIONS"] | {"pool": {"min_size": 4, "max_size": 4}}'
WAYS = {
    "new for each request": DJANGO + 'False, "CONN_MAX_AGE": 0',
    "persistent, unchecked": DJANGO + "False",
    "persistent, SELECT 1": DJANGO + "True",
    "persistent, poll (ours)": "",
    "pool, unchecked": DJANGO + "False, " + POOL,
    "pool, checked": DJANGO + "True, " + POOL,
}


def load(port):
    """Ask for the page for SECONDS; return the milliseconds that each answer took, sorted."""
    taken = []
    end = time.monotonic() + SECONDS

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < end:
            start = time.perf_counter()
            connection.request("GET", "/rows/")
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            taken.append((time.perf_counter() - start) * 1000)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sorted(taken)


def measure(port):
    """Return requests per second and the 99th percentile in milliseconds, from a process of its own."""
    output = subprocess.run([sys.executable, __file__, "--load", str(port)], capture_output=True, text=True, check=True)
    return json.loads(output.stdout)


def lost(site, end):
    """Return how many of 100 requests, each after the other's answer, fail after an event."""
    end()
    time.sleep(0.5)
    return sum(site.get("/rows/")[0] != 200 for _ in range(100))


def main(project):
    python = project.python
    if subprocess.run([python, "-c", "import psycopg_pool"], capture_output=True, check=False).returncode:
        sys.exit(f"Two of the ways need psycopg-pool: uv pip install --python {python} psycopg-pool")
    folder = Path(tempfile.mkdtemp(prefix="connections-"))
    folder.chmod(0o755)
    postgres = Postgres(python, folder)
    postgres.control("start")
    sites = {}
    try:
        postgres.execute("CREATE DATABASE site")
        postgres.execute("ALTER SYSTEM SET max_connections = 100")
        postgres.control("restart")
        for number, (way, change) in enumerate(WAYS.items()):
            (home := folder / str(number)).mkdir()
            sites[way] = site = Site(project, home, URLS, DATABASE_URL=postgres.url("site"), WORKERS=1, THREADS=4)
            settings = home / "outage_settings.py"
            settings.write_text(f"{settings.read_text()}\nDATABASES['default'] |= {{{change}}}\n")
            site.command("python", "manage.py", "migrate", "--verbosity", "0")
            site.start("/rows/")
        rounds = {way: [] for way in sites}
        for _ in range(ROUNDS):
            for way, site in sites.items():
                rounds[way].append(measure(site.port))
        print(f"{'connections':<26}{'requests/s':>11}{'p99':>10}{'lost: backends killed':>24}{'restarted':>12}")
        for way, site in sites.items():
            rate, p99 = (statistics.median(column) for column in zip(*rounds[way], strict=True))
            killed = lost(site, postgres.kill_backends)
            restarted = lost(site, lambda: postgres.control("restart", "-m", "fast"))
            print(f"{way:<26}{rate:>11.0f}{p99:>7.1f} ms{killed:>24}{restarted:>12}", flush=True)
    finally:
        for site in sites.values():
            site.stop()
        postgres.control("stop", "-m", "immediate")
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1] == "--load":
        milliseconds = load(int(sys.argv[2]))
        print(json.dumps([len(milliseconds) / SECONDS, milliseconds[len(milliseconds) * 99 // 100]]))
    else:
        main(Project(Path(sys.argv[1]).resolve()))
