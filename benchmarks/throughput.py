"""What the rendered project costs beside a bare Django: requests per second, CPU time, memory, start-up.

    .venv/bin/python benchmarks/throughput.py [--seconds 2] [--rounds 5] [--profile]

The same views, at the end of this file, run in three sites, on gunicorn (gthread, 1 worker, 4 threads, kept alive, no
access log) and on the same PostgreSQL, over its Unix socket:

- ours: the rendered project with the default answers and the deploy settings, started by deploy/web.py, as behind a
  trusted proxy that ended TLS;
- bare: `django-admin startproject`, changed in DATABASES, ALLOWED_HOSTS and DEBUG = False only;
- floor: the same with two middlewares, sessions and users, without the admin, and with persistent connections.

The load comes from 4 kept-alive connections of one other process; the rounds take turns, and figures are medians. On a
busy machine the CPU time of the worker per request (system time included) is the one to believe. The ceiling is what
the load generator reaches with a server that does nothing. Of the memory, PSS has of what processes share a part for
each, USS has none of it; once more with 4 workers, after some requests for each. --profile also says what the plain
view is made of: the CPU time of a request without gunicorn, and how much less it is without each of the middlewares,
which take turns as well; what one costs that is not in use, such as LocaleMiddleware, is the noise.
"""

import argparse
import contextlib
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
VIEWS = {"plain": 0.95, "one query": 2.8, "20 rows": 2.0, "user": 2.2}  # and the targets: bare is 1
FRAGMENTS = ("rows, uncached", "rows, cached")
CLIENTS, THREADS, RSS = 4, 4, 70
HOST = "example.com"
CANNED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Site:
    """A project with the views in it, and its gunicorn."""

    def __init__(self, name, folder, python, environment, application, *options):
        self.name, self.folder, self.python = name, folder, python
        self.environment = os.environ | {"PYTHONPATH": str(folder.parent)} | environment
        self.server = ["-m", "gunicorn", *options, application]
        self.rates, self.costs, self.slow = {}, {}, {}

    def run(self, *arguments):
        """Run Python in the project; return what it prints."""
        command = [self.python, *arguments]
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, check=False
        )
        if ran.returncode:
            sys.exit(f"{command} failed:\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def cpu_of(self, *arguments):
        """Return the CPU seconds that running Python in the project takes."""
        before = os.times()
        self.run(*arguments)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def prepare(self):
        self.run("manage.py", "migrate", "--verbosity=0")
        self.cookie = self.run("manage.py", "shell", "--no-imports", "-c", FILL).strip()

    def start(self, *options):
        """Start the server, and measure what its processes have used by the end of the first request."""
        self.port = free_port()
        with (self.folder.parent / f"{self.name}.log").open("wb") as log:
            command = [self.python, *self.server, f"--bind=127.0.0.1:{self.port}", *options]
            self.process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.load("plain", requests=1)
        self.worker = self.processes()[-1]
        self.first_request = sum(map(cpu, self.processes()))

    def stop(self):
        self.process.terminate()
        self.process.wait(40)

    def load(self, view, **limits):
        """Ask for a view from another process; return what load() does."""
        limits = {"port": self.port, "path": path_of(view), "cookie": self.cookie if view == "user" else ""} | limits
        output = subprocess.run(
            [sys.executable, __file__, "--load", json.dumps(limits)], stdout=subprocess.PIPE, check=True
        )
        return json.loads(output.stdout)

    def measure(self, view, seconds):
        before = self.cpu()
        count, took, slow = self.load(view, seconds=seconds)
        self.slow.setdefault(view, []).append(slow)
        self.rates.setdefault(view, []).append(count / took)
        self.costs.setdefault(view, []).append((self.cpu() - before) / count * 1e6)

    def cpu(self):
        return cpu(self.worker)

    def processes(self):
        """Return those of the server, the parents first."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def memory_of(self, workers):
        """Start it with so many workers, let each serve some requests, stop it; return the MB of all its processes."""
        self.start(f"--workers={workers}")
        for _ in range(10):  # with new connections each
            self.load("20 rows", seconds=0.3)
        memory = sum(memory_of(process, "pss") for process in self.processes())
        self.stop()
        return memory


def cpu(process):
    times = process.cpu_times()
    return times.user + times.system


def memory_of(process, kind):
    return getattr(process.memory_full_info(), kind) / 2**20


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def path_of(view):
    return f"/{view.replace(', ', '-').replace(' ', '-')}/"


def load(port, path, cookie, seconds=None, requests=0, headers=()):
    """Ask without a pause on CLIENTS connections, or for one page once the server is up.

    Return how often it answered, in how many seconds, and the seconds that 99 of 100 answers did not exceed.
    """
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"]
    lines += [f"Cookie: sessionid={cookie}"] if cookie else []
    lines += headers
    request = "\r\n".join([*lines, "User-Agent: benchmark", "Accept: */*", "\r\n"]).encode()
    deadline = time.monotonic() + 30
    while True:
        try:
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(1 if requests else CLIENTS)]
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    waiting = selectors.DefaultSelector()
    for client in clients:
        waiting.register(client, selectors.EVENT_READ, bytearray())
        client.sendall(request)
    count, start, latencies = 0, time.perf_counter(), []
    sent = dict.fromkeys(clients, start)
    while not count or (seconds and time.perf_counter() - start < seconds):
        for key, _ in waiting.select(10):
            received = key.fileobj.recv(65536)
            if not received:  # the server may close a connection that has waited, and the request has to be sent again
                client = socket.create_connection(("127.0.0.1", port))
                waiting.unregister(key.fileobj)
                waiting.register(client, selectors.EVENT_READ, bytearray())
                sent[client] = sent.pop(key.fileobj)
                client.sendall(request)
                continue
            key.data.extend(received)
            head, blank, body = bytes(key.data).partition(b"\r\n\r\n")
            if not blank or not is_complete(head, body):
                continue
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(f"{path} of port {port}: {head.decode()}")
            count += 1
            now = time.perf_counter()
            latencies.append(now - sent[key.fileobj])
            sent[key.fileobj] = now
            key.data.clear()
            key.fileobj.sendall(request)
    return count, time.perf_counter() - start, sorted(latencies)[int(len(latencies) * 0.99)]


def is_complete(head, body):
    """Tell whether a body has its length, which without CommonMiddleware is not said in advance."""
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    return len(body) == int(length) if length else body.endswith(b"0\r\n\r\n")


def ceiling(seconds):
    """Return the requests per second that the load generator reaches with a server that does nothing."""

    def answer(client):
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65536):
                client.sendall(CANNED)

    def accept():
        while True:
            threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    site = Site("ceiling", ROOT, None, {}, "")
    site.port = server.getsockname()[1]
    count, took, _ = site.load("plain", seconds=seconds)
    return count / took


def build(folder):
    """Render and set up the project; yield the three sites while its PostgreSQL runs."""
    subprocess.run(
        [Path(sys.executable).with_name("cookiecutter"), "--no-input", "-o", folder, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    project = folder / "my_project"
    subprocess.run(["make", "setup"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    python = project / ".venv" / "bin" / "python"
    app = folder / "benchmark_rows"
    (app / "templates").mkdir(parents=True)
    for name, text in {"__init__": "", "models": MODELS, "urls": URLS}.items():
        (app / f"{name}.py").write_text(text)
    (app / "templates" / "rows.html").write_text(ROWS)
    (app / "templates" / "cached_rows.html").write_text(CACHED_ROWS)
    subprocess.run([python, "-m", "django", "startproject", "bare"], cwd=folder, check=True)

    hold = "from my_project.scaling.local import postgres as p; print(p.start(), p.SOCKETS, flush=True); input()"
    holder = subprocess.Popen(
        [python, "-c", hold], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    url, sockets = holder.stdout.readline().split()
    create = "import psycopg, sys; psycopg.connect(sys.argv[1], autocommit=True).execute('CREATE DATABASE bare')"
    subprocess.run([python, "-c", create, url], check=True)

    example = json.loads((project / "config.example.json").read_text())
    config = folder / "config.json"
    config.touch(mode=0o600)
    values = {"SECRET_KEY": "x" * 50, "ALLOWED_HOSTS": [HOST], "DATABASE_URL": url, "TRUSTED_PROXIES": ["127.0.0.1"]}
    config.write_text(json.dumps(example | values | {"WORKERS": 1, "THREADS": THREADS}))
    (folder / "ours_settings.py").write_text(f"from my_project.settings.deploy import *\n{INSTALL}")
    (folder / "bare_settings.py").write_text(f"from bare.settings import *\n{BARE.format(sockets=sockets)}{INSTALL}")
    (folder / "floor_settings.py").write_text(f"from bare_settings import *\n{FLOOR}")
    flags = ["--worker-class=gthread", "--workers=1", f"--threads={THREADS}", "--keep-alive=75"]
    flags += ["--worker-tmp-dir=/dev/shm"] if os.path.isdir("/dev/shm") else []
    environment = {"DJANGO_CONFIG": str(config), "DJANGO_SETTINGS_MODULE": "ours_settings"}
    sites = [Site("ours", project, python, environment, "my_project.wsgi")]
    sites[0].server = ["deploy/web.py", "--max-requests=0"]
    for name in ("bare", "floor"):
        environment = {"DJANGO_SETTINGS_MODULE": f"{name}_settings"}
        sites.append(Site(name, folder / "bare", python, environment, "bare.wsgi", *flags))
    sites[0].run("manage.py", "collectstatic", "--no-input", "--verbosity=0")
    try:
        yield sites
    finally:
        holder.communicate("\n")


def report(sites):
    """Print the figures, each with its ratio to the bare site's, while they run."""
    print(f"{'requests/s (ratio to bare)':<32}" + "".join(f"{site.name:>16}" for site in sites) + f"{'target':>9}")
    for view, target in VIEWS.items():
        print_row(view, [statistics.median(site.rates[view]) for site in sites], "", f"{target:9.2f}")
    print("\nCPU of the worker per request")
    for view in VIEWS:
        print_row(view, [statistics.median(site.costs[view]) for site in sites], "µs")
    for view in FRAGMENTS:
        rate, cost = (statistics.median(figures[view]) for figures in (sites[0].rates, sites[0].costs))
        print(f"  {view:<30}{rate:>8.0f}/s{cost:>8.0f} µs")
    uncached, cached = (statistics.median(sites[0].rates[view]) for view in FRAGMENTS)
    print(f"  from a fragment, times as many{cached / uncached:>8.1f}")
    print("\nmemory and start")
    for kind in ("rss", "pss", "uss"):
        target = f"{RSS:>6} MB" if kind == "rss" else ""
        print_row(f"{kind.upper()} of the worker", [memory_of(site.worker, kind) for site in sites], "MB", target)
    parents = [sum(memory_of(process, "pss") for process in site.processes()[:-1]) for site in sites]
    print_row("PSS of its parents", parents, "MB")
    print_row("CPU, start to 1st answer", [site.first_request * 1000 for site in sites], "ms")
    print_row("CPU of `manage.py check`", [site.check * 1000 for site in sites], "ms")


def profile(site):
    """Print what each middleware adds to the CPU time of a plain request in one thread, in the best of many rounds."""
    middlewares = json.loads(site.run("-c", PROFILE))
    whole = middlewares.pop("")
    print(f"\nCPU of a plain request in {site.name}, without gunicorn\n  {'all':<56}{whole:>8.1f} µs")
    for name, cost in middlewares.items():
        print(f"  {name:<56}{whole - cost:>8.1f} µs{(whole - cost) / whole:>6.0%}")


def print_row(label, figures, unit, end=""):
    print(
        f"  {label:<30}" + "".join(f"{figure:>8.0f}{unit:>2} {figure / figures[1]:>4.2f}" for figure in figures) + end
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="of each view in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="say what the plain view's time is made of")
    parser.add_argument("--load", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(**options.load)))
        return

    folder = Path(tempfile.mkdtemp(prefix="throughput-"))
    folder.chmod(0o755)  # where root runs this, PostgreSQL is another user's
    started = []
    try:
        for sites in build(folder):
            for site in sites:
                site.prepare()
                site.check = statistics.median(site.cpu_of("manage.py", "check") for _ in range(options.rounds))
                site.start()
                started.append(site)
                for view in VIEWS:
                    site.load(view, seconds=0.3)
            for _ in range(options.rounds):
                for view in (*VIEWS, *FRAGMENTS):
                    for site in sites[:1] if view in FRAGMENTS else sites:
                        site.measure(view, options.seconds)
            report(sites)
            top = ceiling(options.seconds)
            while started:
                started.pop().stop()
            print_row("PSS of all, 4 workers", [site.memory_of(4) for site in sites], "MB")
            print(f"\nbare is `django-admin startproject`; the load generator's ceiling is {top:.0f} requests/s")
            for site in sites if options.profile else ():
                profile(site)
    finally:
        for site in started:
            site.stop()
        shutil.rmtree(folder)


INSTALL = """
INSTALLED_APPS = [*INSTALLED_APPS, "benchmark_rows"]
ROOT_URLCONF = "benchmark_rows.urls"
"""

BARE = """
DEBUG = False
ALLOWED_HOSTS = ["example.com"]
DATABASES = {{
    "default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "bare", "HOST": "{sockets}", "USER": "postgres"}}
}}
"""

FLOOR = """
INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "django.contrib.admin"]  # it asks for more middlewares
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES["default"]["CONN_MAX_AGE"] = None
"""

MODELS = """
from django.db import models


class Row(models.Model):
    title = models.CharField(max_length=100)
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "benchmark_rows"
"""

URLS = """
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

from .models import Row


def plain(request):
    return HttpResponse("ok")


def one_query(request):
    return HttpResponse(Row.objects.get(pk=1).title)


def rows(request):
    return render(request, "rows.html", {"rows": Row.objects.order_by("pk")[:20]})


def user(request):
    return HttpResponse(request.user.username)


def cached_rows(request):
    return render(request, "cached_rows.html", {"rows": Row.objects.order_by("pk")[:20]})


urlpatterns = [
    path("plain/", plain),
    path("one-query/", one_query),
    path("20-rows/", rows),
    path("user/", user),
    path("rows-uncached/", rows),
    path("rows-cached/", cached_rows),
]
"""

ROWS = """<!doctype html>
<title>Rows</title>
<ul>
{% for row in rows %}
  <li><a href="/rows/{{ row.pk }}/">{{ row.title|capfirst }}</a> {{ row.created|date:"Y-m-d" }}
    <p>{{ row.text|truncatewords:10 }}</p></li>
{% endfor %}
</ul>
"""

CACHED_ROWS = "{% load scaling %}{% fragment LONG_TTL 'rows' %}" + ROWS + "{% endfragment %}"

# Creates the rows, a user and a session; prints the session's cookie.
FILL = """
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from benchmark_rows.models import Row
if "benchmark_rows_row" not in connection.introspection.table_names():
    with connection.schema_editor() as editor:
        editor.create_model(Row)
    Row.objects.bulk_create(Row(title=f"row {i}", text="Some words about it. " * 10) for i in range(1000))
user, _ = get_user_model().objects.get_or_create(username="ada")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(session.session_key)
"""

# Prints the CPU time of a plain request, in µs: with all middlewares under "", and without each under its name.
PROFILE = """
import importlib, io, json, os, statistics, sys, time

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

report = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the lines of the log
importlib.import_module(settings.WSGI_APPLICATION.rpartition(".")[0])  # there is no deadline elsewhere
middlewares = settings.MIDDLEWARE
request = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/plain/", "SERVER_NAME": "x", "SERVER_PORT": "80",
    "HTTP_HOST": "example.com", "REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9",
    "HTTP_X_FORWARDED_PROTO": "https", "HTTP_USER_AGENT": "benchmark", "HTTP_ACCEPT": "*/*", "wsgi.url_scheme": "http",
}


def answer(handler):
    response = handler(request | {"wsgi.input": io.BytesIO()}, lambda status, headers: None)
    assert b"".join(response) == b"ok"
    response.close()


def handler_without(name):
    settings.MIDDLEWARE = [middleware for middleware in middlewares if middleware != name]
    return WSGIHandler()


def cost(handler):
    start = time.process_time()
    for _ in range(100):
        answer(handler)
    return (time.process_time() - start) / 100 * 1e6


# Others rest on the session.
handlers = {name: handler_without(name) for name in ("", *middlewares) if not name.endswith("SessionMiddleware")}
rounds = [{name: cost(handler) for name, handler in handlers.items()} for _ in range(150)]
costs = {name: statistics.quantiles([costs[name] for costs in rounds[10:]], n=10)[0] for name in handlers}
report.write(json.dumps(costs))
"""


if __name__ == "__main__":
    main()
