"""`make update` of projects that this template renders: by a change of it, by its history, and by each option."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, Project
from histories import SLUG, begin, commit, edit, files, git, render, run, state, update
from test_options import CHOICES, OFF, ON

# The end of what v0.1.0 is to be: no project of it has a record, or `make update`.
FIRST = "91a72a7"


def has_history():
    """Say whether this clone knows what came first; that of an archive or of CI may not."""
    found = subprocess.run(["git", "cat-file", "-e", f"{FIRST}^{{commit}}"], cwd=ROOT, capture_output=True)
    return found.returncode == 0


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """This template as it is now (v1.0.0), on top of its history where that is known, and a next version."""
    folder = tmp_path_factory.mktemp("template") / "template"
    if has_history():
        git(folder.parent, "clone", "--quiet", "--no-checkout", ROOT, folder)
        git(folder, "update-ref", "refs/heads/main", "HEAD")
        git(folder, "symbolic-ref", "HEAD", "refs/heads/main")
        git(folder, "tag", "first", FIRST)
    else:
        git(folder.parent, "init", "--quiet", "--initial-branch=main", folder)
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(".git", ".uv", ".venv", "demo", "__pycache__", ".*_cache"),
        dirs_exist_ok=True,
    )
    for version in ("v1.0.0", "v1.1.0"):
        if version == "v1.1.0":
            edit(folder, f"{SLUG}/Makefile", "PYTHON := .venv/bin/python\n", "# Next\nPYTHON := .venv/bin/python\n")
            edit(folder, f"{SLUG}/{SLUG}/settings/base.py", "\nMIDDLEWARE = [", "\n# Next\nMIDDLEWARE = [")
            (folder / SLUG / "docs" / "next.md").write_text("# Next\n")
        commit(folder, version)
        git(folder, "tag", version)
    return folder


@pytest.fixture(scope="session")
def begun(template, tmp_path_factory):
    return begin(template, tmp_path_factory.mktemp("begun") / "project")


@pytest.fixture
def project(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "project" / begun.name, symlinks=True)


@pytest.fixture(scope="session")
def newest(template, tmp_path_factory):
    return begin(template, tmp_path_factory.mktemp("newest") / "project", "v1.1.0")


def make_edits(project):
    """Do what owners do: a page, a setting, an app with a model, another home page."""
    package = project / "my_project"
    with (package / "settings" / "base.py").open("a") as base:
        base.write('\nINSTALLED_APPS = [*INSTALLED_APPS, "my_project.shop"]\n\nMINE = True\n')
    edit(project, "my_project/urls.py", "urlpatterns = [", 'urlpatterns = [\n    path("mine/", mine, name="mine"),')
    edit(
        project,
        "my_project/urls.py",
        "\nurlpatterns",
        "\ndef mine(request):\n    return HttpResponse()\n\n\nurlpatterns",
    )
    text = (package / "urls.py").read_text()
    (package / "urls.py").write_text(
        re.sub(r"^(from django.*)$", r"from django.http import HttpResponse\n\1", text, count=1, flags=re.M)
    )
    (package / "templates" / "home.html").write_text(
        '{% extends "base.html" %}{% block content %}<h1>Mine</h1>{% endblock %}\n'
    )
    (package / "shop").mkdir()
    (package / "shop" / "__init__.py").touch()
    (package / "shop" / "models.py").write_text("# Mine\n")
    (project / "README.md").write_text("# Mine\n")
    commit(project, "Mine")
    return {"my_project/urls.py", "my_project/settings/base.py", "my_project/templates/home.html", "README.md"}


def without_record(found, but=()):
    return {path: content for path, content in found.items() if path not in {".cruft.json", *but}}


def test_make_update(template, project, tmp_path):
    ahead = run("make", "update", "CHECK=1", cwd=project, check=False)
    shown = run("make", "update", "DRY_RUN=1", cwd=project)
    before = state(project)
    refused = run("make", "update", "SET=use_sentry=perhaps", cwd=project, check=False)

    assert ahead.returncode == 2
    assert "is at v1.0.0; `make update` takes it to v1.1.0." in ahead.stdout
    assert "+# Next" in shown.stdout
    assert refused.returncode == 2
    assert "use_sentry=perhaps is neither true nor false" in refused.stdout
    assert state(project) == before

    ran = run("make", "update", "SET=use_sentry=yes author_name='Ada & \"Co\"'", cwd=project)

    assert "in commit" in ran.stdout
    fresh = render(template, tmp_path / "fresh", use_sentry="true", author_name='Ada & "Co"')
    assert files(project) == files(fresh)
    assert run("make", "update", "CHECK=1", cwd=project).returncode == 0


@pytest.mark.parametrize(
    "record", [None, "{}", '{\n  "template": "/nowhere"\n}\n'], ids=["missing", "empty", "nowhere"]
)
def test_make_update_without_a_template(project, record):
    (project / ".cruft.json").unlink()
    if record:
        (project / ".cruft.json").write_text(record)
    commit(project)
    before = state(project)

    ran = run("make", "update", cwd=project, check=False)

    assert ran.returncode == 2
    assert re.search(
        r"^Nothing was changed: .*(/nowhere could not be cloned|missing or damaged)", ran.stdout, re.MULTILINE
    )
    assert state(project) == before


@pytest.mark.parametrize("directory", ["..", "../../evil", "a/../../../evil"])
def test_make_update_runs_nothing_outside_the_clone(project, tmp_path, directory):
    record = json.loads((project / ".cruft.json").read_text())
    (project / ".cruft.json").write_text(json.dumps(record | {"directory": directory}, indent=2) + "\n")
    commit(project)
    before = state(project)
    for place in (tmp_path, tmp_path / "evil", tmp_path / "it"):
        (place / "scripts").mkdir(parents=True)
        (place / "scripts" / "update.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mktemp").write_text(f"#!/bin/sh\nmkdir {tmp_path}/it.d && echo {tmp_path}/it.d\n")
    (programs / "mktemp").chmod(0o755)

    ran = run("make", "update", cwd=project, check=False, PATH=f"{programs}:{os.environ['PATH']}")

    assert f"Nothing was changed: .cruft.json says directory {directory}; expected" in ran.stdout
    assert ran.returncode == 2
    assert not (tmp_path / "ran").exists()
    assert state(project) == before


@pytest.mark.parametrize("option", CHOICES)
def test_option_on_and_off_in_a_project_with_edits(template, newest, tmp_path, option):
    project = shutil.copytree(newest, tmp_path / "project" / newest.name, symlinks=True)
    mine = make_edits(project)
    before = files(project)

    # What people log in with is another first migration.
    unapplied = ["--unapplied"] if option == "login_with" else []
    on = update(project, "--set", f"{option}={ON[option]}", *unapplied)
    assert on.returncode == 0, on.stdout
    fresh = files(render(template, tmp_path / "fresh", **{option: str(ON[option])}))
    assert without_record(files(project), [*mine, *(path for path in before if "/shop/" in path)]) == without_record(
        fresh, mine
    )
    off = update(project, "--set", f"{option}={OFF[option]}", "--unapplied")

    assert off.returncode == 0, off.stdout
    assert files(project) == before


def test_tables_of_an_option_are_not_taken_away_unasked(template, tmp_path):
    project = begin(template, tmp_path / "project", use_celery="true")
    before = state(project)

    ran = update(project, "--set", "use_celery=false")

    assert ran.returncode == 2
    assert "scaling_tasks.0001_initial" in ran.stdout
    assert ".venv/bin/python manage.py migrate scaling_tasks zero" in ran.stdout
    assert state(project) == before


def test_app_that_is_the_users_is_left_alone_as_a_whole(newest, tmp_path):
    project = shutil.copytree(newest, tmp_path / "project" / newest.name, symlinks=True)
    edit(project, "my_project/accounts/models.py", "class User(", "MINE = True\n\n\nclass User(")
    commit(project)
    before = files(project)

    ran = update(project, "--set", "login_with=email", "--unapplied")

    assert ran.returncode == 1, ran.stdout
    changed = {path for path, content in files(project).items() if content != before[path]}
    assert ".cruft.json" in changed
    assert [path for path in changed if "/accounts/" in path] == []
    step = re.search(
        r"my_project/accounts is yours and was left alone as a whole; .*: git (diff \w+ \w+)$", ran.stdout, re.M
    )
    assert step, ran.stdout
    shown = git(project, *step[1].split())
    assert "LowercaseEmailField" in shown
    assert "accounts/migrations/0001_initial.py" in shown
    assert git(project, "status", "--porcelain") == ""


def test_own_dependency_beside_those_of_an_option(project):
    edit(project, "pyproject.toml", '    "whitenoise', '    "six>=1.17",\n    "whitenoise')
    run("make", "lock", cwd=project)
    commit(project)

    ran = update(project, "--set", "use_sentry=true")

    assert ran.returncode == 0, ran.stdout
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert {"six", "sentry-sdk"} <= set(re.findall(r"^([\w-]+)==", (project / name).read_text(), re.MULTILINE))
    run("make", "lock", cwd=project)
    assert git(project, "status", "--porcelain") == ""


def test_tests_pass_after_an_update_by_history(template, default_project, tmp_path):
    """From a version without a record, by the two documented commands."""
    first = "first" if has_history() else "v1.0.0"
    project = begin(template, tmp_path / "project", first)
    record = {"project_name": "My Project", "project_slug": "my_project"}
    record = {
        "template": str(template),
        "commit": git(template, "rev-parse", first),
        "context": {"cookiecutter": record},
    }
    (project / ".cruft.json").write_text(json.dumps(record, indent=2))
    make_edits(project)
    git(tmp_path, "clone", "--quiet", template, "clone")

    path = f"{os.environ['PATH']}:{sys.base_prefix}/bin"
    ran = run("uv", "run", "--no-project", "../../clone/scripts/update.py", cwd=project, check=False, PATH=path)

    assert ran.returncode == 0, ran.stdout
    assert git(project, "status", "--porcelain") == ""
    assert "MINE = True" in (project / "my_project" / "settings" / "base.py").read_text()
    assert "Mine" in (project / "my_project" / "templates" / "home.html").read_text()
    (project / ".venv").symlink_to(default_project.path / ".venv")
    Project(project).run("make", "test")


def test_template_never_adds_a_migration_to_accounts():
    """The next one is the user's."""
    for folder in (ROOT / SLUG / SLUG / "accounts").rglob("migrations"):
        assert sorted(file.name for file in folder.glob("*.py")) == ["0001_initial.py", "__init__.py"]


def test_what_is_written_once_is_what_the_map_says(begun):
    names = json.loads((ROOT / "cookiecutter.json").read_text())["_written_once"]
    row = next(
        line for line in (begun / "docs" / "architecture.md").read_text().splitlines() if line.startswith("| yours")
    )

    assert set(re.findall("`([^`]+?)/?`", row)) == {name.replace("{slug}", "my_project") for name in names}
    assert [name for name in names if not (begun / name.replace("{slug}", "my_project")).exists()] == []
