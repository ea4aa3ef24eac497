"""The rendered project beside a bare Django and the projects of other templates, in production mode.

    git clone https://github.com/cookiecutter/cookiecutter-django peers/cookiecutter-django
    git clone https://github.com/lincolnloop/django-layout peers/django-layout
    git clone https://github.com/wemake-services/wemake-django-template peers/wemake-django-template
    .venv/bin/python benchmarks/peers.py peers [--seconds 2] [--rounds 5] [--output docs]

writes the figures to peers.md and a chart of them to peers.svg. Needs redis-server or valkey-server on PATH, and for
cookiecutter-django a C compiler and the headers of libpq. A peer that cannot be run is listed with the reason.

Each project is rendered with its default answers, installed with uv from what its own lock or requirements name, and
runs with the settings and the command that it ships for production; what had to be given or changed is said in NOTES.
All are on one Python and on one PostgreSQL, over its Unix socket. The views are those of throughput.py, which take the
place of the project's own URLs; so do the load, from 4 kept-alive connections, and the floor. For all of them there is
one worker with four threads, which is never recycled, behind a trusted proxy that ended TLS.

Memory (PSS of all processes) and the time to the first answer are measured with each project alone; then the rounds
take turns, and figures are medians. "To the first page" goes from rendering to the first answer, and is the median of
three runs: with packages from a warm cache, migrations and collected static files; PostgreSQL and Redis run already.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from html import escape
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from cache import start_redis
from throughput import (
    BARE,
    FILL,
    FLOOR,
    HOST,
    INSTALL,
    MODELS,
    ROOT,
    ROWS,
    THREADS,
    URLS,
    Site,
    cpu,
    free_port,
    load,
)

RUNS = 3
VIEWS = ("plain", "one query", "20 rows")
UV = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
os.environ["PATH"] += f"{os.pathsep}{Path(UV).parent}"  # a peer's own hooks call it, too
OPTIONS = ["--bind=127.0.0.1:{port}", "--max-requests=0"]
GUNICORN = ["-m", "gunicorn", *OPTIONS, "--workers=1", f"--threads={THREADS}"]
NOTES = {
    "bare": "`django-admin startproject` on gunicorn; changed are DATABASES, ALLOWED_HOSTS and DEBUG = False",
    "floor": "the same with two middlewares, without the admin, with persistent connections",
    "ours": "default answers, deploy settings, `deploy/web.py`",
    "cookiecutter-django": (
        "`use_whitenoise=y cloud_provider=None mail_service='Other SMTP'`, which need no account elsewhere; "
        "`config.settings.production`, `gunicorn config.wsgi`, with Redis"
    ),
    "django-layout": (
        "`DJANGO_ENV=production` and the `GUNICORN_CMD_ARGS` of its Dockerfile; its folders of static files, which are "
        "those of the container, are moved, and its style sheet is not built"
    ),
    "wemake-django-template": (
        "`DJANGO_ENV=production`, its `gunicorn_config.py` with another folder than the container's; the main group of "
        "its `poetry.lock`, installed by uv; static files in `.static`, as its `DJANGO_COLLECTSTATIC_DRYRUN` has it"
    ),
}


class PeerError(Exception):
    """Why a project cannot be run here."""


class Project(Site):
    """A project in a folder; its command is what Python runs, with {port} in it."""

    def __init__(self, name, folder, command, environment, collects=True):
        environment = {
            "DJANGO_SETTINGS_MODULE": f"{name.replace('-', '_')}_settings",
            "PYTHONPATH": f"{folder.parent}:{folder.parent.parent}",
        } | environment
        super().__init__(name, folder, folder / ".venv" / "bin" / "python", environment, "")
        self.command, self.collects = command, collects
        self.cookie, self.first_answers = "", []

    def prepare(self):
        self.run("manage.py", "migrate", "--verbosity=0")
        if self.collects:
            self.run("manage.py", "collectstatic", "--no-input", "--verbosity=0")

    def start(self):
        """Start it, and note the seconds until its first answer."""
        self.port = free_port()
        begin = time.perf_counter()
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            command = [self.python, *(part.format(port=self.port) for part in self.command)]
            self.process = psutil.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            load(self.port, "/plain/", "", requests=1)
        except OSError as error:
            self.stop()
            raise PeerError(f"{command} does not serve: {Path(log.name).read_text()[-1000:]}") from error
        self.first_answers.append(time.perf_counter() - begin)

    def stop(self):
        """Kill it: what it would still wait for is no part of this."""
        if self.process and self.process.is_running():
            processes = self.processes()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, 10)

    def processes(self):
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self):
        return sum(map(cpu, self.processes()))

    def memory(self):
        """Return the megabytes of all its processes, with their share of what they have in common."""
        return sum(process.memory_full_info().pss for process in self.processes()) / 2**20

    def measure_alone(self, rounds):
        """Start it a few times, and see what memory it needs after some load."""
        for _ in range(rounds):
            self.start()
            self.stop()
        self.start()
        for view in VIEWS:
            self.load(view, seconds=1)
        self.alone = self.memory()
        self.stop()

    def versions(self):
        """Return those of Python, Django and gunicorn that it runs on."""
        code = "import sys, django, gunicorn; print(sys.version.split()[0], django.__version__, gunicorn.__version__)"
        return self.run("-c", code).split()


class Projects:
    """Renders and installs projects in a folder; each has a database of its own on the same PostgreSQL."""

    def __init__(self, folder, sources, redis):
        self.folder, self.sources, self.redis = folder, sources, redis
        self.project = self.render(ROOT, folder / "database") / "my_project"
        run("make", "setup", cwd=self.project)
        hold = "from my_project.scaling.local import postgres as p; p.start(); print(p.SOCKETS, flush=True); input()"
        self.holder = subprocess.Popen(
            [self.project / ".venv" / "bin" / "python", "-c", hold],
            cwd=self.project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.sockets = self.holder.stdout.readline().strip()
        app = folder / "benchmark_rows"
        (app / "templates").mkdir(parents=True)
        for name, text in {"__init__": "", "models": MODELS, "urls": URLS}.items():
            (app / f"{name}.py").write_text(text)
        (app / "templates" / "rows.html").write_text(ROWS)

    def close(self):
        self.holder.communicate("\n")

    def create_database(self, name):
        """Create an empty database for a project, and return its name."""
        database = name.replace("-", "_")
        self.url = f"postgresql://postgres@{quote(self.sockets, safe='')}/{database}"
        self.variables = {"POSTGRES_DB": database, "POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "unused"}
        with psycopg.connect(host=self.sockets, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database}")
            connection.execute(f"CREATE DATABASE {database}")
        return database

    def build(self, name):
        """Return a project that was built RUNS times, with the seconds from rendering to the first answer.

        Before that, packages may be downloaded and compiled.
        """
        build, seconds = getattr(self, self.create_database(name)), []
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            build(Path(folder))
        for run in range(RUNS):
            self.create_database(name)
            folder = self.folder / f"{run}"
            folder.mkdir(exist_ok=True)
            os.environ["UV_OFFLINE"] = "1"
            try:
                begin = time.perf_counter()
                project = build(folder)
                project.prepare()
                project.start()
                seconds.append(time.perf_counter() - begin)
                project.stop()
            finally:
                del os.environ["UV_OFFLINE"]
        project.first_page = None if name == "floor" else statistics.median(seconds)
        project.run("manage.py", "shell", "--no-imports", "-c", FILL)
        return project

    def render(self, source, folder, *answers, packages=()):
        """Render a template into a folder with cookiecutter, and return the folder."""
        more = [part for package in packages for part in ("--with", package)]
        run(UV, "tool", "run", *more, "cookiecutter", "--no-input", "-o", folder, source, *answers, cwd=source)
        return folder

    def source(self, name, folder):
        """Return a copy of a template whose projects may run on this Python."""
        if not (self.sources / name).is_dir():
            raise PeerError(f"there is no folder {name} among the sources")
        source = shutil.copytree(self.sources / name, folder / "sources" / name)
        for file in [*source.rglob("pyproject.toml"), *source.rglob("uv.lock")]:
            file.write_text(
                re.sub(r'^requires-python = ".*"$', 'requires-python = ">=3.12"', file.read_text(), flags=re.M)
            )
        return source

    def settings(self, folder, name, module, more=""):
        text = f"from {module} import *\n{INSTALL}{more}"
        (folder / f"{name.replace('-', '_')}_settings.py").write_text(text)

    def install(self, project, *requirements, pins):
        """Install requirements with pins, such as django==6.1."""
        (project / "pins.txt").write_text("\n".join(pins))
        run(UV, "venv", ".venv", cwd=project)
        run(UV, "pip", "install", "--python", ".venv", "--constraints", "pins.txt", *requirements, cwd=project)

    def ours(self, folder):
        self.render(ROOT, folder)
        project = folder / "my_project"
        run("make", ".venv/requirements", cwd=project)
        example = json.loads((project / "config.example.json").read_text())
        config = folder / "config.json"
        config.touch(mode=0o600)
        values = {"ALLOWED_HOSTS": [HOST], "DATABASE_URL": self.url, "TRUSTED_PROXIES": ["127.0.0.1"], "WORKERS": 1}
        config.write_text(json.dumps(example | values | {"SECRET_KEY": "x" * 50, "THREADS": THREADS}))
        self.settings(folder, "ours", "my_project.settings.deploy")
        return Project("ours", project, ["deploy/web.py", *OPTIONS], {"DJANGO_CONFIG": str(config)})

    def bare(self, folder):
        pins = re.findall(r"^[\w-]+==[\w.]+", (self.project / "requirements.txt").read_text(), re.MULTILINE)
        django = next(pin for pin in pins if pin.startswith("django=="))
        run(UV, "tool", "run", "--from", django, "django-admin", "startproject", "bare", cwd=folder)
        project = folder / "bare"
        self.install(project, "django", "gunicorn", "psycopg[binary]", pins=pins)
        self.settings(folder, "bare", "bare.settings", BARE.format(sockets=self.sockets))
        return Project("bare", project, [*GUNICORN, "bare.wsgi"], {}, collects=False)

    def floor(self, folder):
        """bare, which has been built before, with other settings."""
        (folder / "floor_settings.py").write_text(
            f"from bare_settings import *\n{FLOOR}DATABASES['default']['NAME'] = 'floor'\n"
        )
        return Project("floor", folder / "bare", [*GUNICORN, "bare.wsgi"], {}, collects=False)

    def cookiecutter_django(self, folder):
        answers = ["use_whitenoise=y", "cloud_provider=None", "mail_service=Other SMTP"]
        self.render(self.source("cookiecutter-django", folder), folder, *answers)
        project = folder / "my_awesome_project"
        run(UV, "sync", "--locked", "--no-dev", cwd=project)
        self.settings(folder, "cookiecutter-django", "config.settings.production")
        variables = {"POSTGRES_HOST": self.sockets, "REDIS_URL": self.redis}
        variables |= {"DJANGO_SECRET_KEY": "x" * 50, "DJANGO_ADMIN_URL": "admin/"}
        return Project("cookiecutter-django", project, [*GUNICORN, "config.wsgi"], self.variables | variables)

    def django_layout(self, folder):
        template = ["--template", self.source("django-layout", folder), "--extension=py,md,gitignore,yaml,json,toml"]
        more = ["--name=Makefile,Dockerfile", "--exclude=.github", "layout"]
        run(UV, "tool", "run", "--from", "django", "django-admin", "startproject", *template, *more, cwd=folder)
        project = folder / "layout"
        locked = tomllib.loads((project / "uv.lock").read_text())["package"]
        pins = [f"{package['name']}=={package['version']}" for package in locked if "registry" in package["source"]]
        self.install(project, "-r", "pyproject.toml", pins=pins)
        folders = f"STATIC_ROOT = {str(folder / 'layout_static')!r}\nSTATICFILES_DIRS = []\n"
        self.settings(folder, "django-layout", "layout.settings", folders)
        arguments = "--access-logfile=- --forwarded-allow-ips='*' --timeout=10"
        variables = {"DATABASE_URL": self.url, "SECRET_KEY": "x" * 50, "GUNICORN_CMD_ARGS": arguments}
        return Project("django-layout", project, [*GUNICORN, "layout.wsgi"], variables)

    def wemake_django_template(self, folder):
        self.render(self.source("wemake-django-template", folder), folder, packages=["jinja2-git"])
        project = folder / "test-project"
        locked = tomllib.loads((project / "poetry.lock").read_text())["package"]
        main = [package for package in locked if "main" in package["groups"] and not package["optional"]]
        self.install(project, "--no-deps", "-r", "pins.txt", pins=[requirement(package) for package in main])
        self.settings(folder, "wemake-django-template", "server.settings")
        variables = {"DJANGO_ENV": "production", "DOMAIN_NAME": HOST, "DJANGO_COLLECTSTATIC_DRYRUN": "true"}
        variables |= {"DJANGO_DATABASE_HOST": self.sockets, "DJANGO_DATABASE_PORT": "5432"}
        config = project / "docker" / "django" / "gunicorn_config.py"
        config.write_text(config.read_text().replace("'/code'", repr(str(project))))
        command = [*GUNICORN, "--config=python:docker.django.gunicorn_config", "server.wsgi"]
        return Project("wemake-django-template", project, command, self.variables | variables)


def requirement(package):
    """Return a package of a poetry.lock as a requirement."""
    marker = package.get("markers", "")
    marker = marker.get("main", "") if isinstance(marker, dict) else marker
    return f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")


def run(*command, cwd):
    command = [str(part) for part in command]
    ran = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise PeerError(
            f"`{' '.join(command)}` ended with {ran.returncode}: {(ran.stderr or ran.stdout).strip()[-1000:]}"
        )


def version():
    """Return that of this template."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def commit(folder):
    """Return the commit of a clone and its date."""
    command = ["git", "-C", folder, "log", "-1", "--format=%h, %cs"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def figures(project):
    """Return what is told of a project, by the titles of the columns."""

    def median(values, factor=1):
        return statistics.median(values) * factor

    return {
        **{f"{view}, requests/s": median(project.rates[view]) for view in VIEWS},
        **{f"{view}, µs of CPU": median(project.costs[view]) for view in VIEWS},
        **{f"{view}, p99 in ms": median(project.slow[view], 1000) for view in VIEWS},
        "memory, MB": project.alone,
        "first answer, s": median(project.first_answers),
        "to the first page, s": project.first_page,
    }


def shown(figure):
    return "–" if figure is None else f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}"


def table(projects, failures, sources):
    """Return the figures, and what was measured, as Markdown."""
    columns = [figures(project) for project in projects]
    names = " | ".join(project.name for project in projects)
    lines = [f"| | {names} |", "|---" * (len(projects) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(shown(column[title]) for column in columns)} |" for title in columns[0]]
    lines += ["", "| | Django | gunicorn | version or commit | what was run |", "|---|---|---|---|---|"]
    for project in projects:
        _, django, gunicorn = project.versions()
        origin = version() if project.name == "ours" else commit(sources / project.name)
        lines.append(f"| {project.name} | {django} | {gunicorn} | {origin} | {NOTES[project.name]} |")
    lines += [f"\n{name} could not be run: {reason}" for name, reason in failures.items()]
    return "\n".join(lines)


STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #3b4252 }
.title { font-weight: 600; font-size: 13px; fill: #1c2128 }
.note { fill: #6b7280; font-size: 11px }
.label { text-anchor: end }
rect.other { fill: #b9c0cc }
rect.ours { fill: #2f6fde }
text.ours { fill: #1c2128; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #c3cad5 }
  .title, text.ours { fill: #f0f3f7 }
  .note { fill: #98a2b3 }
  rect.other { fill: #566072 }
  rect.ours { fill: #6ea0ff }
}
"""
PANEL, BAR, LABEL, LENGTH = 440, 18, 160, 200


def chart(projects, foot):
    """Return a picture of the figures, in two columns of bars, whose colours follow the reader's light or dark page."""
    columns = [figures(project) for project in projects]
    height = BAR * len(projects) + 44
    titles = list(columns[0])
    whole = height * -(-len(titles) // 2) + 16 * len(foot) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * PANEL} {whole}" width="{2 * PANEL}" role="img">'
    ]
    lines += ["<title>The rendered project beside a bare Django and other templates</title>", f"<style>{STYLE}</style>"]

    def write(kind, x, y, text):
        lines.append(f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(text)}</text>')

    for index, title in enumerate(titles):
        left, top = PANEL * (index % 2), height * (index // 2) + 18
        better = "more is better" if "requests/s" in title else "less is better"
        write("title", left + 8, top, title)
        write("note label", left + PANEL - 24, top, better)
        most = max(column[title] or 0 for column in columns)
        for row, (project, column) in enumerate(zip(projects, columns, strict=True)):
            x, y, length = left + LABEL + 8, top + 10 + BAR * row, LENGTH * (column[title] or 0) / most
            kind = "ours" if project.name == "ours" else "other"
            write(f"label {kind}", x - 8, y + 13, project.name)
            lines.append(f'<rect class="{kind}" x="{x}" y="{y + 2}" width="{length:.1f}" height="14" rx="2"/>')
            write(kind, x + length + 6, y + 13, shown(column[title]))
    for number, line in enumerate(foot):
        write("note", 8, whole - 16 * (len(foot) - number) + 6, line)
    return "\n".join([*lines, "</svg>"]) + "\n"


def machine():
    """Return what the figures were measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory:.0f} GB, {platform.system()}"


def measure(projects, seconds, rounds):
    """Measure each project alone, then all of them in turns."""
    for project in projects:
        project.measure_alone(rounds)
    started = []
    try:
        for project in projects:
            started.append(project)
            project.start()
            for view in VIEWS:
                project.load(view, seconds=0.5)
        for _ in range(rounds):
            for view in VIEWS:
                for project in projects:
                    project.measure(view, seconds)
    finally:
        for project in started:
            project.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, help="the folder that the templates were cloned into")
    parser.add_argument("--seconds", type=float, default=2, help="of each view in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="the folder for peers.md and peers.svg")
    options = parser.parse_args()
    sources = options.sources.resolve()
    os.environ |= {"UV_PYTHON": os.path.realpath(sys.executable), "UV_PYTHON_DOWNLOADS": "never"}

    others = f"load of others {os.getloadavg()[0]:.0f}"  # before anything is measured
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    folder.chmod(0o755)  # where root runs this, PostgreSQL is another user's
    redis, url = start_redis()
    factory = None
    try:
        factory = Projects(folder, sources, url)
        projects, failures = [], {}
        for name in NOTES:
            print(f"builds {name}", file=sys.stderr)
            try:
                projects.append(factory.build(name))
            except (PeerError, SystemExit) as error:
                failures[name] = " ".join(str(error).split())
        measure(projects, options.seconds, options.rounds)
        python = projects[0].versions()[0]
        told = [
            f"{machine()}, Python {python}, {datetime.date.today()}, {others}",
            f"One worker, {THREADS} threads, settings for production: benchmarks/peers.py",
        ]
        text = f"{INTRODUCTION}\n{told[0]}.\n\n{table(projects, failures, sources)}\n"
        (options.output / "peers.md").write_text(text)
        (options.output / "peers.svg").write_text(chart(projects, told))
        print(text)
    finally:
        if factory:
            factory.close()
        redis.terminate()
        redis.wait()
        shutil.rmtree(folder)


INTRODUCTION = """# Beside other templates

`benchmarks/peers.py` wrote this file; it says what each figure is, and how to have it measured again. The times to the
first answer and to the first page are not taken in turns: where others use the machine, too, they say little.

![The figures as bars](peers.svg)
"""


if __name__ == "__main__":
    main()
