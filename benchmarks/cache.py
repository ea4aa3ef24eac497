"""What pages cost: made anew, from the database cache, and from Redis.

    .venv/bin/python benchmarks/cache.py [--seconds 1] [--rounds 5]

The project with `use_redis`, deploy settings and deploy/gunicorn.conf.py (1 worker, 4 threads), once with and once
without CACHE_REDIS_URL. Needs a redis-server or valkey-server on PATH. Load and figures are those of throughput.py; the
sites take turns, and figures are medians. The pages are

- parts: three fragments of 20 rows each, which vary on nothing that takes a query;
- teasers: 20 rows from one query, each a fragment of its own, of a link, a date and ten words;
- articles: the same, with a text of 200 words, of which filters make paragraphs and links.

Rows are uncached, all in the cache (warm), all but one (changed), or none of them (cold).
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
import itertools

from django.shortcuts import render
from django.urls import path

from .models import Row


def page(template):
    rows = Row.objects.order_by("pk")
    return lambda request: render(request, template, {"parts": [rows[:20], rows[20:40], rows[40:60]]})


numbers = itertools.count(1)


def listing(template, new=0):
    def view(request):
        rows = list(Row.objects.order_by("pk")[:20])
        for number, row in enumerate(rows):
            row.version = next(numbers) if number < new else 0
        return render(request, template, {"rows": rows})

    return view


# The load generator begins with plain/
urlpatterns = [
    path("plain/", page("parts-warm.html")),
    path("parts-warm/", page("parts-warm.html")),
    path("parts-uncached/", page("parts-uncached.html")),
]
for name in ("teasers", "articles"):
    urlpatterns += [
        path(f"{name}-uncached/", listing(f"{name}-uncached.html")),
        path(f"{name}-warm/", listing(f"{name}-warm.html")),
        path(f"{name}-changed/", listing(f"{name}-warm.html", new=1)),
        path(f"{name}-cold/", listing(f"{name}-warm.html", new=20)),
    ]
"""

PART = ROWS.replace("<!doctype html>\n<title>Rows</title>\n", "")
PARTS = "<!doctype html>{% for rows in parts %}" + PART + "{% endfor %}"
TEASER = """
  <li><a href="/rows/{{ row.pk }}/">{{ row.title|capfirst }}</a> {{ row.created|date:"Y-m-d" }}
    <p>{{ row.text|truncatewords:10 }}</p></li>
"""
ARTICLE = TEASER + "{% for _ in '12345' %}{{ row.text|urlize|linebreaks }}{% endfor %}"
TEMPLATES = {
    "parts-uncached": PARTS,
    "parts-warm": PARTS.replace(PART, "{% fragment LONG_TTL 'rows' forloop.counter %}" + PART + "{% endfragment %}"),
}
for name, row in {"teasers": TEASER, "articles": ARTICLE}.items():
    TEMPLATES[f"{name}-uncached"] = "<!doctype html>{% for row in rows %}" + row + "{% endfor %}"
    TEMPLATES[f"{name}-warm"] = (
        "<!doctype html>{% fragment LONG_TTL '"
        + name
        + "' row row.version for row in rows %}"
        + row
        + "{% endfragment %}"
    )

PAGES = {
    "parts": ("uncached", "warm"),
    **dict.fromkeys(["teasers", "articles"], ("uncached", "warm", "changed", "cold")),
}
VIEWS = {f"{name}, {way}": f"{name}, uncached" for name, ways in PAGES.items() for way in ways}


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
    for name, text in TEMPLATES.items():
        (app / "templates" / f"{name}.html").write_text("{% load scaling %}" + text)
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
    parser.add_argument("--seconds", type=float, default=1, help="of each page in each round")
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
                for view in VIEWS:
                    site.measure(view, options.seconds)
        print(f"{'':<30}{'requests/s':>12}{'of uncached':>14}{'CPU of the worker':>20}")
        for site in sites:
            print(site.name)
            for view in VIEWS:
                rate, uncached = (statistics.median(site.rates[name]) for name in (view, VIEWS[view]))
                cost = statistics.median(site.costs[view])
                print(f"  {view:<28}{rate:>12.0f}{rate / uncached:>14.2f}{cost:>17.0f} µs")
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
