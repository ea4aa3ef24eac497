"""Every run-time dependency has a reason: without it, the project no longer works."""

import tomllib

import pytest
from packaging.requirements import Requirement

# The modules that each dependency, and each extra of one, is there for.
MODULES = {
    "dj-database-url": "dj_database_url",
    "django": "django",
    "django[argon2]": "argon2",
    "gunicorn": "gunicorn",
    "gunicorn[setproctitle]": "setproctitle",
    "msgspec": "msgspec",
    "psycopg": "psycopg",
    "psycopg[binary]": "psycopg_binary",
    "whitenoise": "whitenoise",
    "whitenoise[brotli]": "brotli",
}

# The same of the dependencies that an option brings in; a test of the option shows their use.
OPTIONAL = {
    "use_redis": {"redis": "redis"},
    "use_celery": {"celery": "celery"},
    "use_cdn": {},
    "use_replica": {},
    "media_storage=s3": {"django-storages": "storages"},
    "use_sentry": {"sentry-sdk": "sentry_sdk"},
}

# What a deployed project does on its first day, on a machine that has no libpq of its own.
WORK = """
import ctypes.util
import sys

ctypes.util.find_library = lambda name: None
sys.modules.update(dict.fromkeys(sys.argv[1:]))

import django
django.setup()

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

call_command("check")
call_command("migrate", verbosity=0)
user, _ = get_user_model().objects.get_or_create(username="ada")
user.set_password("correct horse battery staple")
user.save()
assert Client().login(username="ada", password="correct horse battery staple")
assert Client().get("/", headers={"host": "example.com"}, secure=True).status_code == 200

from whitenoise.compress import Compressor
smaller = Compressor(quiet=True).compress(str(next(settings.STATIC_ROOT.glob("admin/css/*.css"))))
assert any(path.endswith(".br") for path in smaller), "brotli"

from gunicorn.util import _setproctitle
_setproctitle("my_project")
assert open("/proc/self/cmdline").read().startswith("gunicorn: "), "setproctitle"
"""


@pytest.fixture(scope="module")
def environment(default_project, database_url, tmp_path_factory):
    """The environment of a deployed project that is ready to serve."""
    environment = default_project.configure(tmp_path_factory.mktemp("config"), DATABASE_URL=database_url)
    default_project.manage("collectstatic", "--no-input", **environment)
    return environment


def work(project, environment, *blocked):
    """Run WORK in a project where some modules cannot be imported."""
    return project.run(project.python, "-c", WORK, *blocked, check=False, **environment)


def test_every_dependency_is_known(default_project):
    content = tomllib.loads((default_project.path / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = [Requirement(dependency) for dependency in content["project"]["dependencies"]]
    extras = [f"{dependency.name}[{extra}]" for dependency in dependencies for extra in dependency.extras]

    assert sorted(MODULES) == sorted([dependency.name for dependency in dependencies] + extras)


@pytest.mark.parametrize("option", OPTIONAL)
def test_option_brings_its_dependencies_only(cookies, option):
    name, _, value = option.partition("=")
    path = cookies.bake(extra_context={name: value or True}).project_path
    content = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))

    found = {Requirement(dependency).name for dependency in content["project"]["dependencies"]}

    assert found - MODULES.keys() == OPTIONAL[option].keys()


def test_works_with_all_dependencies(default_project, environment):
    ran = work(default_project, environment)

    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("dependency", MODULES)
def test_does_not_work_without(default_project, environment, dependency):
    ran = work(default_project, environment, MODULES[dependency])

    assert ran.returncode != 0
    assert MODULES[dependency] in ran.stdout, ran.stdout
