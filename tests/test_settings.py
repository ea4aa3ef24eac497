"""The settings of the rendered project mean something, and its entry points find them."""

import json
import re

import pytest

# Run in the rendered project: prints the settings that neither it nor the named distributions read.
UNREAD = """
import ast, json, sys
from importlib.metadata import distribution
from pathlib import Path
from django.conf import settings

def names_read(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and file.parent == settings_folder:
            yield node.id

package, *distributions = sys.argv[1:]
settings_folder = Path(package, "settings").resolve()
files = [file.resolve() for file in Path(package).rglob("*.py")]
for name in distributions:
    files += [Path(file.locate()) for file in distribution(name).files if file.suffix == ".py"]
read = set()
for file in files:
    # Django's templates of projects hold no Python, and its defaults read nothing.
    if "project_template" not in file.parts and file.name != "global_settings.py":
        read.update(names_read(file))
own = [name for name in dir(settings) if name.isupper() and settings.is_overridden(name)]
print(json.dumps([name for name in own if name not in read]))
"""


@pytest.mark.parametrize("module", ["local", "deploy"])
def test_every_setting_is_read(project, tmp_path, module):
    settings = project.package / "settings" / f"{module}.py"
    settings.write_text(settings.read_text() + "\nSTATICFILES_STORAGE = SECURE_BROWSER_XSS_FILTER = None\n")
    environment = project.configure(tmp_path) | {"DJANGO_SETTINGS_MODULE": f"{project.path.name}.settings.{module}"}

    installed = re.findall(r"^([a-z0-9-]+)==", (project.path / "requirements.txt").read_text(), re.MULTILINE)
    if module == "local":
        installed.append("django-debug-toolbar")
    installed.remove("tzdata")

    unread = project.run(project.python, "-c", UNREAD, project.package, *installed, **environment).stdout

    # The two that were added show that the test would notice: Django stopped reading them long ago.
    assert json.loads(unread) == ["SECURE_BROWSER_XSS_FILTER", "STATICFILES_STORAGE"]


@pytest.mark.parametrize("entry", ["wsgi", "asgi"])
def test_server_without_local_py(project, entry):
    (project.package / "settings" / "local.py").unlink()

    ran = project.run(project.python, "-c", f"import {project.path.name}.{entry}", check=False)

    assert ran.returncode == 1
    assert "make setup" in ran.stdout.splitlines()[-1]
    assert "ln -s deploy.py" in ran.stdout.splitlines()[-1]


def test_manage_without_local_py(project):
    local = project.package / "settings" / "local.py"
    local.unlink()

    ran = project.manage("check", check=False)

    assert ran.returncode == 1
    assert ran.stdout.splitlines() == [
        f"{local} does not exist: run `make setup` on your own machine, or `ln -s deploy.py {local}` on a server."
    ]


def test_local_py_linked_to_deploy_py(project, tmp_path):
    local = project.package / "settings" / "local.py"
    local.unlink()
    local.symlink_to("deploy.py")

    config = project.configure(tmp_path)["DJANGO_CONFIG"]
    shown = project.manage("diffsettings", DJANGO_CONFIG=config).stdout

    assert "ALLOWED_HOSTS = ['example.com']" in shown


def test_settings_module_in_the_environment_wins(project, tmp_path):
    environment = project.configure(tmp_path)

    assert "DEBUG = False" in project.manage("diffsettings", "--all", **environment).stdout
    assert "DEBUG = True" in project.manage("diffsettings", "--all").stdout


def test_settings_module_among_the_options_wins(project, tmp_path):
    (tmp_path / "elsewhere.py").write_text(f"from {project.path.name}.settings.local import *\nDEBUG = 'elsewhere'\n")

    options = ("--settings=elsewhere", f"--pythonpath={tmp_path}")

    assert "DEBUG = 'elsewhere'" in project.manage("diffsettings", *options).stdout


def test_settings_module_that_does_not_exist(project):
    ran = project.manage("check", "--settings=no.such.module", check=False)

    assert ran.returncode == 1
    assert "No module named 'no'" in ran.stdout


def test_wrong_config_of_a_settings_module_among_the_options(project, tmp_path):
    config = project.configure(tmp_path, COLOUR="red")["DJANGO_CONFIG"]

    settings = f"--settings={project.path.name}.settings.deploy"
    ran = project.manage("shell", settings, "--command=1", check=False, DJANGO_CONFIG=config)

    assert ran.returncode == 1
    assert "COLOUR" in ran.stdout
    assert "Traceback" not in ran.stdout


def test_local_py_follows_the_options(set_up, tmp_path):
    """local.py outlives options that come and go: what it imports is tracked."""
    without, with_celery = set_up(), set_up(use_celery=True)
    for project, other in ((without, with_celery), (with_celery, without)):
        copy = project.copy(tmp_path / other.path.parent.name)
        local = copy.package / "settings" / "local.py"
        local.write_text((other.package / "settings" / "local.py").read_text() + "\nLANGUAGE_CODE = 'sv'\n")

        shown = copy.manage("diffsettings").stdout

        assert "LANGUAGE_CODE = 'sv'" in shown
        assert ("CELERY_TASK_ALWAYS_EAGER = True" in shown) is (project is with_celery)
