"""Every run-time dependency has a reason: without it, the project no longer works."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
UV = shutil.which(os.environ.get("UV", "uv"))
assert UV, "uv is neither on PATH nor in $UV"

# The modules that each dependency, and each extra of one, is there for.
MODULES = {
    "dj-database-url": "dj_database_url",
    "django": "django",
    "django[argon2]": "argon2",
    "msgspec": "msgspec",
    "psycopg": "psycopg",
    "psycopg[binary]": "psycopg_binary",
}

# What a deployed project does on its first day, on a machine that has no libpq of its own.
WORK = """
import ctypes.util
import sys

ctypes.util.find_library = lambda name: None
sys.modules.update(dict.fromkeys(sys.argv[1:]))

import django
django.setup()

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

call_command("check")
call_command("migrate", verbosity=0)
user, _ = get_user_model().objects.get_or_create(username="ada")
user.set_password("correct horse battery staple")
user.save()
assert Client().login(username="ada", password="correct horse battery staple")
assert Client().get("/", headers={"host": "example.com"}).status_code == 200
"""


DATABASE = "from my_project import local_postgres; print(local_postgres.start(), flush=True); input()"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Yield a project that is set up, with a config for its deploy settings and a running database."""
    folder = tmp_path_factory.mktemp("dependencies")
    project = Path(cookiecutter(str(ROOT), no_input=True, output_dir=str(folder)))
    subprocess.run(["make", "setup", f"UV={UV}"], cwd=project, check=True)
    command = [project / ".venv" / "bin" / "python", "-c", DATABASE]
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as database:
        config = {
            "SECRET_KEY": "k" * 50,
            "ALLOWED_HOSTS": ["example.com"],
            "DATABASE_URL": database.stdout.readline().strip(),
        }
        (project / "config.json").write_text(json.dumps(config), encoding="utf-8")
        yield project
        database.communicate("\n")


def work(project, *blocked):
    """Run WORK in a project where some modules cannot be imported."""
    return subprocess.run(
        [project / ".venv" / "bin" / "python", "-c", WORK, *blocked],
        cwd=project,
        env=os.environ | {"DJANGO_CONFIG": "config.json", "DJANGO_SETTINGS_MODULE": "my_project.settings.deploy"},
        capture_output=True,
        text=True,
    )


def test_every_dependency_is_known(project):
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = [Requirement(dependency) for dependency in content["project"]["dependencies"]]
    extras = [f"{dependency.name}[{extra}]" for dependency in dependencies for extra in dependency.extras]

    assert sorted(MODULES) == sorted([dependency.name for dependency in dependencies] + extras)


def test_works_with_all_dependencies(project):
    result = work(project)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("dependency", MODULES)
def test_does_not_work_without(project, dependency):
    result = work(project, MODULES[dependency])

    assert result.returncode != 0
    assert MODULES[dependency] in result.stderr, result.stderr
