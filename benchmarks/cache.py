"""What a page with three fragments costs: made anew, from the database cache, and from Redis.

    .venv/bin/python benchmarks/cache.py [--seconds 2] [--rounds 5]

The project with `use_redis`, deploy settings and deploy/gunicorn.conf.py (1 worker, 4 threads), once with and once
without CACHE_REDIS_URL; each fragment lists 20 rows. Needs a redis-server or valkey-server on PATH. Load and figures
are those of throughput.py; the sites take turns, and figures are medians.
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from throughput import HOST, INSTALL, MODELS, ROOT, ROWS, Site

URLS = """
from django.shortcuts import render
from django.urls import path

from .models import Row


def page(template):
    rows = Row.objects.order_by("pk")
    return lambda request: render(request, template, {"parts": [rows[:20], rows[20:40], rows[40:60]]})


# The load generator begins with plain/
urlpatterns = [
    path("plain/", page("cached.html")),
    path("cached/", page("cached.html")),
    path("anew/", page("anew.html")),
]
"""

PART = ROWS.replace("<!doctype html>\n<title>Rows</title>\n", "")
ANEW = "<!doctype html>{% for rows in parts %}" + PART + "{% endfor %}"
CACHED = ANEW.replace(PART, "{% fragment LONG_TTL 'rows' forloop.counter %}" + PART + "{% endfragment %}")


def run(*command, folder):
    subprocess.run([str(part) for part in command], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def start_redis():
    """Return a Redis and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program = shutil.which("redis-server") or shutil.which("valkey-server") or sys.exit("needs redis-server on PATH")
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while socket.socket().connect_ex(("127.0.0.1", port)):
        time.sleep(0.01)
    return process, f"redis://127.0.0.1:{port}/0"


def build(folder, redis):
    """Render and set up the project; return both sites, and what holds their PostgreSQL."""
    run(Path(sys.executable).with_name("cookiecutter"), "--no-input", "-o", folder, ROOT, "use_redis=true", folder=ROOT)
    project = folder / "my_project"
    run("make", "setup", folder=project)
    python = project / ".venv" / "bin" / "python"
    app = folder / "benchmark_rows"
    (app / "templates").mkdir(parents=True)
    for name, text in {"__init__": "", "models": MODELS, "urls": URLS}.items():
        (app / f"{name}.py").write_text(text)
    (app / "templates" / "anew.html").write_text(ANEW)
    (app / "templates" / "cached.html").write_text("{% load scaling %}" + CACHED)
    (folder / "site_settings.py").write_text(f"from my_project.settings.deploy import *\n{INSTALL}")
    hold = "from my_project.scaling.local import postgres; print(postgres.start(), flush=True); input()"
    holder = subprocess.Popen(
        [python, "-c", hold], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    values = json.loads((project / "config.example.json").read_text()) | {
        "SECRET_KEY": "x" * 50,
        "ALLOWED_HOSTS": [HOST],
        "DATABASE_URL": holder.stdout.readline().strip(),
        "TRUSTED_PROXIES": ["127.0.0.1"],
        "WORKERS": 1,
    }
    sites = []
    for name, url in (("database", None), ("Redis", redis)):
        config = folder / f"{name}.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(values | {"CACHE_REDIS_URL": url}))
        environment = {"DJANGO_CONFIG": str(config), "DJANGO_SETTINGS_MODULE": "site_settings"}
        options = ["--config=deploy/gunicorn.conf.py", "--max-requests=0"]
        sites.append(Site(name, project, python, environment, "my_project.wsgi", *options))
    return sites, holder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="of each page in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cache-"))
    folder.chmod(0o755)  # where root runs this, PostgreSQL is another user's
    redis, url = start_redis()
    holder, started = None, []
    try:
        sites, holder = build(folder, url)
        for site in sites:
            site.prepare()
            site.start()
            started.append(site)
        for _ in range(options.rounds):
            for site in sites:
                for view in ("anew", "cached"):
                    site.measure(view, options.seconds)
        print(f"{'a page with three fragments':<30}{'requests/s':>12}{'CPU of the worker':>20}")
        for site in sites:
            for view in ("anew", "cached"):
                rate, cost = (statistics.median(figures[view]) for figures in (site.rates, site.costs))
                label = f"from {site.name}" if view == "cached" else f"made anew, beside {site.name}"
                print(f"  {label:<28}{rate:>12.0f}{cost:>17.0f} µs")
        for site in sites:
            print(f"  {f'worker RSS, {site.name}':<28}{site.worker.memory_info().rss / 2**20:>9.0f} MB")
        memory = psutil.Process(redis.pid).memory_info().rss / 2**20
        print(f"  {'redis-server RSS':<28}{memory:>9.0f} MB")
    finally:
        for site in started:
            site.stop()
        if holder:
            holder.communicate("\n")
        redis.terminate()
        redis.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
