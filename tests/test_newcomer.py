"""What the READMEs promise to somebody with nothing but make and Python 3."""

import contextlib
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import requests
from conftest import ROOT, Project, Server, clean_environment, free_port, wait_until_gone


@pytest.fixture
def clone(tmp_path):
    """A fresh copy of this repository, as somebody who clones it gets it once the changes are committed."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.split("\0"):
        if name and (ROOT / name).exists():
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


@pytest.fixture
def bare_environment(tmp_path):
    """An environment with the system's programs and python3 on PATH: no uv, no variables."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    kept = {"HOME", "LANG", "SSL_CERT_FILE", "PIP_CERT", "XDG_CACHE_HOME", "UV_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    return environment | {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}


# What pyenv puts on PATH for each program of each of its versions: it runs the one of the version that is selected or,
# if that has none, whatever PATH finds without the folder of the shims.
SHIM = """#!/bin/sh
name=${{0##*/}}
selected={root}/versions/$PYENV_VERSION/bin
if [ -x "$selected/$name" ]; then
    export PATH="$selected:$PATH"
    exec "$selected/$name" "$@"
fi
others=$(echo ":$PATH:" | sed "s|:{root}/shims:|:|g")
found=$(PATH=$others command -v "$name") && exec "$found" "$@"
echo "pyenv: $name: command not found" >&2
exit 127
"""


def real_uv():
    """Return the path of uv itself, also where the one on PATH is a shim: uv tells it to what it runs."""
    command = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable, "printenv", "UV"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def pyenv(bare_environment, tmp_path):
    """The environment of somebody who has pyenv, with uv in its version "with-uv", and no other uv."""
    root = tmp_path / "pyenv"
    for folder in ("shims", "versions/with-uv/bin", "versions/without-uv/bin"):
        (root / folder).mkdir(parents=True)
    (root / "versions/with-uv/bin/uv").symlink_to(real_uv())
    for name in ("uv", "python", "python3.11", "python3.12", "python3.13", "python3.14"):
        (root / "shims" / name).write_text(SHIM.format(root=root))
        (root / "shims" / name).chmod(0o755)
    return bare_environment | {"PATH": f"{root}/shims:{bare_environment['PATH']}", "PYENV_ROOT": str(root)}


def commands(readme):
    """Return the commands in the code blocks of a README, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


def test_commands_of_the_readme():
    """`make demo` is run below, the next three by every test that renders a project, `make test` is this run.

    What benchmarks/ measures is measured by hand.
    """
    assert commands(ROOT / "README.md") == [
        "make demo",
        "uvx cookiecutter ~/cookiecutter-django-scale",
        "cd my_project",
        "make dev",
        ".venv/bin/python benchmarks/peers.py peers",
        "make test",
    ]


def test_demo(clone, bare_environment, tmp_path):
    """`make demo` serves the home page and the admin; Ctrl-C ends everything that it started."""
    address = f"127.0.0.1:{free_port()}"
    server = Server(
        ["make", "demo", f"ADDRESS={address}", "ARGS=project_name=Shop"],
        address,
        tmp_path / "make-demo.log",
        cwd=clone,
        env=bare_environment,
    ).wait_until_up(180)

    assert "<h1>Shop</h1>" in server.get("/").text
    assert server.get("/admin/login/").status_code == 200

    server.stop()
    wait_until_gone(clone)
    assert "Traceback" not in server.log.read_text()


def test_demo_address_in_use(clone, bare_environment):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ran = subprocess.run(
            ["make", "demo", f"ADDRESS={address}"],
            cwd=clone,
            env=bare_environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert ran.returncode != 0
    assert f"{address} is in use" in ran.stdout
    assert not (clone / "demo").exists()


@pytest.mark.parametrize("version", ["with-uv", "without-uv"])
@pytest.mark.parametrize("folder", ["template", "project"])
def test_uv_is_a_shim_of_pyenv(clone, project, pyenv, folder, version):
    """uv was installed with pip: into the version of Python that is selected, or into another one."""
    path = clone if folder == "template" else project.path
    (path / ".venv").unlink(missing_ok=True)

    with subprocess.Popen(
        ["make", ".venv/requirements"],
        cwd=path,
        env=pyenv | {"PYENV_VERSION": version},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as make:
        try:
            output, _ = make.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGKILL)

    assert make.returncode == 0, output
    assert (path / ".venv/requirements").exists()


@pytest.mark.parametrize("folder", ["template", "project"])
def test_no_interpreter(clone, project, bare_environment, tmp_path, folder):
    """Where there is no Python that Django supports, and none can be downloaded, make says so in a sentence."""
    path = clone if folder == "template" else project.path
    (path / ".venv").unlink(missing_ok=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").symlink_to(real_uv())
    for tool in ("cp", "dirname", "echo", "expand", "ls", "make", "rm", "sed", "sh", "test", "touch", "tr"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)

    ran = subprocess.run(
        ["make", "test"],
        cwd=path,
        env={"PATH": str(tools), "HOME": str(tmp_path), "UV_PYTHON_DOWNLOADS": "never", "UV_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert "It needs Python >=3.12,<3.15, found on this machine or downloaded" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.fixture
def bare(request, clone, project):
    """This repository or a rendered project, as the parameter says, without its environment."""
    path = clone if request.param == "template" else project.path
    (path / ".venv").unlink(missing_ok=True)
    return path


def install(path, *arguments, **environment):
    """Run `make .venv/requirements`; return the CompletedProcess."""
    command = ["make", ".venv/requirements", *arguments]
    return subprocess.run(
        command, cwd=path, env=clean_environment(**environment), capture_output=True, text=True, check=False
    )


def is_whole(path):
    """Tell whether the environment in a folder has everything that is listed, and nothing else is left in it."""
    command = [path / ".venv/bin/python", "-m", "pre_commit", "--version"]
    names = {part.name for folder in (".", ".venv", ".local", ".uv") for part in (path / folder).glob("*venv-*")}
    return subprocess.run(command, check=False).returncode == 0 and not names


@pytest.mark.parametrize("bare", ["template", "project"], indirect=True)
@pytest.mark.parametrize("left", ["no environment", "half a package"])
def test_remains_of_an_installation(bare, left):
    """What an older Makefile left when it was killed is not taken for an environment."""
    if left == "no environment":
        (bare / ".venv/bin").mkdir(parents=True)
        (bare / ".venv/bin/python").symlink_to(sys.executable)
    else:
        install(bare)
        (bare / ".venv/requirements").unlink()
        shutil.rmtree(next(bare.glob(".venv/lib/python*/site-packages/pre_commit")))

    ran = install(bare)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert is_whole(bare)


@pytest.mark.parametrize("bare", ["template", "project"], indirect=True)
@pytest.mark.parametrize("moment", ["bin", "lib/python*/site-packages/pre_commit"])
def test_interrupted_installation(bare, moment):
    """Whatever was there when the first command was killed, the next one begins anew."""
    command = ["make", ".venv/requirements"]
    with subprocess.Popen(command, cwd=bare, env=clean_environment(), start_new_session=True) as make:
        while not [*bare.glob(f".venv/{moment}"), *bare.glob(f".*/venv-*/{moment}")]:
            assert make.poll() is None
        os.killpg(make.pid, signal.SIGTERM)
    assert make.returncode != 0
    assert not (bare / ".venv/requirements").exists()

    ran = install(bare)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert is_whole(bare)


@pytest.mark.parametrize("bare", ["template", "project"], indirect=True)
def test_two_installations_at_once(bare, bare_environment):
    command = ["make", ".venv/requirements"]
    with (
        subprocess.Popen(command, cwd=bare, env=bare_environment) as first,
        subprocess.Popen(command, cwd=bare, env=bare_environment) as second,
    ):
        pass

    assert (first.returncode, second.returncode) == (0, 0)
    assert is_whole(bare)


@pytest.mark.parametrize("bare", ["template", "project"], indirect=True)
def test_cache_that_cannot_be_written(bare, tmp_path):
    """uv says what is wrong, and nobody says that Python is missing."""
    (tmp_path / "file").touch()

    ran = install(bare, UV_CACHE_DIR=str(tmp_path / "file" / "cache"))

    assert ran.returncode != 0
    assert "Failed to initialize cache" in ran.stderr
    assert "UV_CACHE_DIR names another one" in ran.stdout
    assert "is needed" not in ran.stdout


# A package that nobody has built yet, and which needs nothing to be built.
SOURCE = {
    "pyproject.toml": """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
""",
    "PKG-INFO": "Metadata-Version: 2.1\nName: unbuilt\nVersion: 1.0\n",
    "backend.py": """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "unbuilt-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("unbuilt.py", "")
        info = "unbuilt-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: unbuilt\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
""",
}


@pytest.mark.parametrize("bare", ["project"], indirect=True)
def test_package_without_a_wheel(bare, tmp_path):
    """It is not compiled unasked, and how to ask is said."""
    archive = tmp_path / "unbuilt-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in SOURCE.items():
            member = tarfile.TarInfo(f"unbuilt-1.0/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (bare / "requirements-dev.txt").write_text(f"unbuilt==1.0 --hash=sha256:{digest}\n")
    source = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path)}

    refused = install(bare, **source)
    assert refused.returncode != 0
    assert "unbuilt" in refused.stderr
    assert "only if the line BUILD in the Makefile is empty" in refused.stdout
    assert not (bare / ".venv").exists()

    built = install(bare, "BUILD=", **source)
    assert built.returncode == 0, built.stdout + built.stderr


def test_project_that_was_moved(default_project, tmp_path):
    """Its commands are found where they are now."""
    project = default_project.copy(tmp_path / "before")
    (project.path / ".venv").unlink()
    assert install(project.path).returncode == 0
    (tmp_path / "before").rename(tmp_path / "after")
    moved = Project(tmp_path / "after" / project.path.name)
    moved.run("git", "init", "-q")
    moved.run("git", "add", ".")

    moved.run("make", "lint")
    moved.run(moved.python.with_name("gunicorn"), "--version")


def test_commands_of_the_project(project, serve):
    """Every command in the README of the rendered project works in a fresh project."""
    project.run("git", "init", "-q")
    project.run("git", "add", ".")
    listed = commands(project.path / "README.md")

    assert listed[0] == "make dev"
    server = serve(project)
    assert server.get("/").status_code == 200
    for command in listed[1:]:
        project.run(*command.split())


def test_log_in(project, serve):
    """A newcomer makes an account and signs in to the admin."""
    server = serve(project)
    project.manage(
        "createsuperuser",
        "--no-input",
        DJANGO_SUPERUSER_USERNAME="ada",
        DJANGO_SUPERUSER_EMAIL="ada@example.com",
        DJANGO_SUPERUSER_PASSWORD="correct horse",
    )

    with requests.Session() as session:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', session.get(server.url + "/admin/login/").text)[
            1
        ]
        form = {"username": "ada", "password": "correct horse", "csrfmiddlewaretoken": token}
        page = session.post(server.url + "/admin/login/?next=/admin/", form)

    assert page.url == server.url + "/admin/"
    assert "Site administration" in page.text


@pytest.mark.parametrize("change", ["nothing", "an error", "a model without migration"])
def test_lint(project, change):
    """The checks pass on the fresh project, reach nothing outside it, and notice what they are there for."""
    project.run("git", "init", "-q")
    if change == "an error":
        (project.package / "urls.py").write_text("import os\nprint('x')\n")
    elif change == "a model without migration":
        models = project.package / "accounts" / "models.py"
        models.write_text("from django.db import models\n" + models.read_text() + "\n    x = models.TextField()\n")
    project.run("git", "add", ".")

    ran = project.run("make", "lint", check=False, UV_OFFLINE="1", HTTPS_PROXY="http://127.0.0.1:9")

    assert (ran.returncode == 0) == (change == "nothing"), ran.stdout


def test_lint_says_what_it_repaired(project):
    """It fails, for who checks what is committed, and passes when it is run again."""
    project.run("git", "init", "-q")
    (project.package / "two words.txt").write_text("word \n")
    project.run("git", "add", ".")
    readme = project.path / "README.md"
    readme.write_text(readme.read_text() + "Mine.\n")

    ran = project.run("make", "lint", check=False)
    assert ran.returncode != 0
    assert "Repaired; a second make lint says what is left:\n  my_project/two words.txt\nmake: ***" in ran.stdout
    project.run("make", "lint")


@pytest.mark.parametrize("outer", [False, True])
def test_lint_without_git(project, outer):
    """A repository that begins further up is none of the project's own: the checks would run in its folder."""
    if outer:
        for arguments in (["init", "-q"], ["add", project.path.name]):
            subprocess.run(["git", *arguments], cwd=project.path.parent, check=True)

    ran = project.run("make", "lint", check=False)

    assert ran.returncode != 0
    assert "git init && git add ." in ran.stdout
    assert len(ran.stdout.splitlines()) == 2
    assert outer == (f"begins at {project.path.parent}:" in ran.stdout)


def test_two_first_setups_at_once(project):
    """One of them migrates, the other waits for it."""
    options = {"cwd": project.path, "env": clean_environment(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    setups = [subprocess.Popen(["make", "setup"], text=True, **options) for _ in range(3)]
    outputs = [setup.communicate(timeout=120)[0] for setup in setups]

    assert [setup.returncode for setup in setups] == [0, 0, 0], "\n".join(outputs)


def test_terminated_serve_leaves_nothing(project, tmp_path):
    """A SIGTERM to the process of `make serve` alone, as an editor or a supervisor sends it, ends gunicorn, too."""
    address = f"127.0.0.1:{free_port()}"
    command, log = [project.python, "-m", "deploy.serve", address], tmp_path / "serve.log"
    server = Server(command, address, log, cwd=project.path, env=clean_environment()).wait_until_up()

    server.process.terminate()
    server.process.wait(30)

    with pytest.raises(requests.ConnectionError):
        server.get("/")
    wait_until_gone(project.path)


def test_setup_is_idempotent(project):
    project.run("make", "setup")
    local = project.package / "settings" / "local.py"
    local.write_text(local.read_text() + "\n# mine\n")

    project.run("make", "setup")

    assert local.read_text().endswith("# mine\n")


def test_interrupt_ends_everything(project, serve):
    server = serve(project)

    server.stop(signal.SIGINT)

    wait_until_gone(project.path)


def test_killed_server_leaves_no_database(project, serve):
    server = serve(project)

    server.stop(signal.SIGKILL)

    wait_until_gone(project.path)


def test_paths_in_home_page_exist(project, serve):
    """The files that the home page tells the newcomer to change are there."""
    named = re.findall(r"<code>([\w/]+\.\w+)</code>", serve(project).get("/").text)

    assert len(named) == 3
    assert [name for name in named if not Path(project.path, name).exists()] == []


def test_debug_toolbar(project, serve):
    page = serve(project).get("/").text

    assert 'id="djDebug"' in page


@pytest.mark.parametrize(("switch", "backend"), [("on", "DatabaseCache"), ("off", "DummyCache")])
def test_cache_switch(project, switch, backend):
    settings = project.manage("diffsettings", CACHE=switch).stdout

    assert re.search(r"^CACHES = .*", settings, re.MULTILINE)[0].count(backend) == 1


def test_help_names_every_command(project):
    listed = re.findall(r"^make (\w+) +\S", project.run("make").stdout, re.MULTILINE)

    assert listed == [
        "help",
        "setup",
        "dev",
        "app",
        "serve",
        "test",
        "browser",
        "loadtest",
        "lint",
        "audit",
        "lock",
        "update",
    ]
