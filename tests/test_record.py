"""The record names the version and the answers of a project, from wherever the template was rendered."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from histories import SLUG, commit, git, make_history, run

ANSWERS = {"colour": "red", "description": "A better shop.", "project_slug": "shop", "use_x": False}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_history(tmp_path_factory.mktemp("record") / "template")


@pytest.fixture
def home(tmp_path):
    """A home of its own for cookiecutter, where it keeps clones."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home")}


def record_of(folder, source, *arguments, cwd=None, **environment):
    """Render a source as it is typed; return the record, with what was said."""
    program = Path(sys.executable).with_name("cookiecutter")
    ran = run(program, "--no-input", *arguments, source, cwd=cwd or folder, **environment)
    found = list(Path(folder).rglob(".cruft.json"))
    assert len(found) == 1
    return json.loads(found[0].read_text()), ran.stdout


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_local_path(template, out, home):
    record, said = record_of(out, template, **home)

    assert record == {
        "template": str(template),
        "commit": git(template, "rev-parse", "v2.0.0"),
        "checkout": None,
        "context": {"cookiecutter": ANSWERS},
        "directory": None,
    }
    assert "uncommitted" not in said


def test_relative_path(template, out, home):
    folder = out / "two" / "deep"
    folder.mkdir(parents=True)
    here = os.path.relpath(template, folder)

    assert record_of(out, here, cwd=folder, PWD=str(folder), **home)[0]["template"] == str(template)


@pytest.mark.parametrize("pwd", ["{cwd}", "/nonexistent"], ids=["shell", "program"])
def test_relative_path_with_another_folder_for_the_output(template, out, home, pwd):
    folder = template.parent
    arguments = ("--output-dir", str(out)) if pwd == "{cwd}" else ()
    cwd = folder if arguments else out
    typed = template.name if arguments else os.path.relpath(template, out)

    record, _ = record_of(out, typed, *arguments, cwd=cwd, PWD=pwd.format(cwd=cwd), **home)

    assert record["template"] == str(template)


def test_address_and_tag(template, out, home):
    record, _ = record_of(out, f"git+file://{template}", "--checkout", "v1.1.0", **home)

    assert record["template"] == f"file://{template}"
    assert record["commit"] == git(template, "rev-parse", "v1.1.0")
    assert record["checkout"] == "v1.1.0"


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("https://ada:secret@example.com/small.git", "https://example.com/small.git"),
        ("https://secret@example.com:8443/small.git", "https://example.com:8443/small.git"),
        ("ssh://git@example.com/small.git", "ssh://git@example.com/small.git"),
        ("git@example.com:small.git", "git@example.com:small.git"),
        ("gh:ada/small", "https://github.com/ada/small.git"),
        ("our:small", "https://example.com/our/small.git"),
    ],
)
def test_addresses_are_recorded_without_credentials_and_in_full(template, out, home, tmp_path, typed, recorded):
    """Git is told that the template is where the address points to."""
    (tmp_path / "rc").write_text(
        "abbreviations:\n  our: https://example.com/our/{0}.git\n  gh: https://github.com/{0}.git\n"
    )
    address = typed.replace("our:", "https://example.com/our/").replace("gh:", "https://github.com/")
    address = address if address.endswith(".git") else f"{address}.git"
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "file://{template}"]\n\tinsteadOf = {address}\n')

    environment = home | {"GIT_CONFIG_GLOBAL": str(config)}
    record, _ = record_of(out, typed, "--config-file", tmp_path / "rc", **environment)

    assert record["template"] == recorded
    assert "secret" not in json.dumps(record)


def test_zip_that_git_made(template, out, home, tmp_path):
    git(template, "archive", "--prefix=small-main/", "--output", tmp_path / "small.zip", "v1.1.0")

    record, said = record_of(out, tmp_path / "small.zip", **home)

    assert record["template"] == "https://example.com/small.git"
    assert record["commit"] == git(template, "rev-parse", "v1.1.0")
    assert "Nothing says which commit" not in said


def test_copy_that_git_does_not_know(template, out, home, tmp_path):
    """The commit cannot be told, not even where the copy lies in another repository."""
    git(tmp_path, "init", "--quiet")
    copy = shutil.copytree(template, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))

    record, said = record_of(out, copy, **home)

    assert (record["template"], record["commit"]) == ("https://example.com/small.git", None)
    assert "Nothing says which commit of the template this is." in said


def test_template_in_a_folder_of_a_repository(template, out, home, tmp_path):
    shutil.copytree(template, tmp_path / "all" / "templates" / "shop", ignore=shutil.ignore_patterns(".git"))
    git(tmp_path / "all", "init", "--quiet")
    commit(tmp_path / "all")

    record, _ = record_of(out, f"git+file://{tmp_path}/all", "--directory", "templates/shop", **home)

    assert (record["template"], record["directory"]) == (f"file://{tmp_path}/all", "templates/shop")


@pytest.mark.parametrize("change", ["edited", "new"])
def test_uncommitted_changes_are_named(template, out, home, tmp_path, change):
    copy = shutil.copytree(template, tmp_path / "copy", symlinks=True)
    (copy / SLUG / ("README.md" if change == "edited" else "new.txt")).write_text("changed\n")

    record, said = record_of(out, copy, **home)

    assert record["uncommitted"] is True
    assert "The template has uncommitted changes" in said


def test_same_bytes_wherever_and_whenever(template, tmp_path, home):
    records = []
    for number, zone in enumerate(("UTC", "Asia/Kathmandu")):
        folder = tmp_path / str(number) / ("x" * number)
        folder.mkdir(parents=True)
        record_of(folder, template, TZ=zone, PYTHONHASHSEED=str(number), LC_ALL="C", **home)
        records.append((folder / "shop" / ".cruft.json").read_bytes())

    assert records[0] == records[1]


def test_cruft_reads_the_record_and_writes_its_own(template, out, home, cruft, tmp_path):
    if not cruft:
        pytest.skip("needs cruft from PyPI")
    record_of(out, template, **home)
    project = out / "shop"
    git(project, "init", "--quiet")
    commit(project)
    assert run(cruft, "check", cwd=project, **home).returncode == 0
    assert "diff --git" not in run(cruft, "diff", "--exit-code", cwd=project, **home).stdout
    (project / "shop" / "views.py").write_text("")
    assert run(cruft, "diff", "--exit-code", cwd=project, check=False, **home).returncode == 1

    run(cruft, "create", "--no-input", "--output-dir", tmp_path / "own", template, cwd=tmp_path, **home)

    own = json.loads((tmp_path / "own" / "shop" / ".cruft.json").read_text())
    assert own["commit"] == git(template, "rev-parse", "HEAD")
    assert "_repo_dir" not in json.dumps(own)
