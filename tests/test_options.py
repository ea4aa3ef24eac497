"""Every combination of the options is clean, the chosen ones work, and an option that is off leaves no trace."""

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, rendered
from cookiecutter.main import cookiecutter
from test_docs import documented, timeouts

CHOICES = {
    name: [False, True] if isinstance(default, bool) else default
    for name, default in json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8")).items()
    if isinstance(default, bool | list) and not name.startswith("_")
}
OFF = {name: values[0] for name, values in CHOICES.items()}
ON = {name: values[-1] for name, values in CHOICES.items()}

# What only a project with the option speaks of; others may, for reasons of their own, when more options are on.
WORDS = {
    "use_redis": "redis",
    "use_celery": r"celery|broker|task_|(?<!mail)outbox|scaling\.tasks|local\.dev|PasswordResetForm|a task looks",
    "use_cdn": "cdn",
    "use_replica": "replica",
    "media_storage": r"\bs3\b|_s3_|boto|\bbuckets?\b(?!:)",
    "use_sentry": "sentry",
    "login_with": r"LowercaseEmailField|ordering = \[\"email\"\]|USERNAME_FIELD = None",
    "deployment": r"kubernetes|kubectl|multiple-documents|systemctl|sd_notify|release\.py|servers of your own|www-data",
    "ci": "gitlab",
}

# Choices that touch no file of another option: combined with none, each and all of the others.
ALONE = ("login_with", "deployment", "ci")

# What a project with the default of a choice speaks of instead.
INSTEAD = {
    "media_storage": "media",
    "login_with": "username",
    "deployment": r"docker|compose|ready\.py|/secrets/",
    "ci": "github",
}

# Set up and tested in environments of their own; test_newcomer does so with the default answers. Among these, each pair
# of options is there in its four ways: both, neither, each without the other.
CHOSEN = {
    "Redis, Celery, CDN": {"use_redis": True, "use_celery": True, "use_cdn": True, "deployment": "kubernetes"},
    "Redis, replicas, S3": {"use_redis": True, "use_replica": True, "media_storage": "s3", "deployment": "server"},
    "Celery, replicas, Sentry": {"use_celery": True, "use_replica": True, "use_sentry": True, "login_with": "email"},
    "CDN, S3, Sentry": {"use_cdn": True, "media_storage": "s3", "use_sentry": True, "ci": "gitlab"},
    "everything": ON,
}


@pytest.fixture(scope="module")
def combinations(tmp_path_factory):
    """The paths of all combinations, by their answers in the order of CHOICES.

    The choices in ALONE are combined with none, each and all of the others.
    """
    folder = tmp_path_factory.mktemp("combinations")
    paths = {}
    for number, values in enumerate(itertools.product(*CHOICES.values())):
        answers = dict(zip(CHOICES, values, strict=True))
        changed = {name for name in answers if answers[name] != OFF[name]}
        if changed & {*ALONE} and 2 < len(changed) < len(CHOICES):
            continue
        paths[values] = cookiecutter(str(ROOT), no_input=True, extra_context=answers, output_dir=folder / str(number))
    return folder, paths


@pytest.fixture(scope="module", params=CHOSEN)
def chosen(request, set_up):
    return set_up(**CHOSEN[request.param])


def lint(project, folder):
    """Check and format all projects in a folder with the ruff of a project; fail if there is anything to do."""
    for command in ("check", "format --check"):
        ran = subprocess.run(
            [project.python.with_name("ruff"), *command.split(), "--no-cache", folder], capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout


def test_every_option_has_its_words():
    assert WORDS.keys() == CHOICES.keys()


def test_lint(default_project, combinations):
    lint(default_project, combinations[0])


@pytest.mark.parametrize("answers", [OFF, ON], ids=["off", "on"])
@pytest.mark.parametrize("slug", ["a", "a" * 40])
def test_lint_with_short_and_long_names(default_project, tmp_path, slug, answers):
    cookiecutter(str(ROOT), no_input=True, extra_context=answers | {"project_slug": slug}, output_dir=tmp_path)

    lint(default_project, tmp_path)


def test_looks_written_by_hand(combinations):
    """No tag of the template is left, and no blank line that a person would not leave."""
    for path in combinations[1].values():
        for file, text in rendered(path).items():
            assert "cookiecutter" not in text.lower() or file in (".cruft.json", "docs/updates.md"), file
            assert "endraw" not in text, file
            assert not text.startswith("\n"), file
            assert text == "" or text.endswith("\n"), file
            assert not text.endswith("\n\n"), file
            assert "\n\n\n\n" not in text, file
            if file.endswith(".md"):
                text = re.sub(r"^```\w*$.*?^```$", "code", text, flags=re.DOTALL | re.MULTILINE)
            assert file.endswith((".py", ".py-tpl")) or "\n\n\n" not in text, file
            assert not any(line != line.rstrip() for line in text.splitlines()), file


def test_no_empty_folders(combinations):
    folders = [folder for path in combinations[1].values() for folder in Path(path).rglob("*") if folder.is_dir()]

    assert [folder for folder in folders if not any(folder.iterdir())] == []


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in CHOICES.items() for value in values[1:]]
)
def test_off_leaves_no_trace(combinations, option, value):
    paths = combinations[1]
    word = re.compile(WORDS[option], re.IGNORECASE)
    other = re.compile(INSTEAD.get(option, WORDS[option]), re.IGNORECASE)
    off, on = (rendered(paths[tuple((OFF | {option: value}).values())]) for value in (OFF[option], value))
    del off[".cruft.json"], on[".cruft.json"]  # the record names all options

    assert [file for file, text in off.items() if word.search(f"{file}\n{text}")] == []
    assert [file for file in off.keys() - on.keys() if not other.search(f"{file}\n{off[file]}")] == []
    changed = [file for file in off.keys() & on.keys() if on[file] != off[file]]
    assert [file for file in changed if not (word.search(on[file]) or other.search(off[file]))] == []
    assert changed


def test_tests_pass(chosen):
    chosen.run("make", "test")


def test_check_deploy_is_silent(chosen, tmp_path):
    with chosen.database() as url:
        environment = chosen.configure(tmp_path, DATABASE_URL=url)
        checked = chosen.manage("check", "--deploy", "--fail-level", "WARNING", **environment)

    assert checked.stdout.startswith("System check identified no issues")


def test_timeouts_in_operations(chosen):
    assert documented(chosen) == timeouts(chosen)


def test_config_before_local_py_is_linked(chosen, tmp_path):
    project = chosen.copy(tmp_path)
    (project.package / "settings" / "local.py").unlink()

    assert "SECRET_KEY" in project.manage("config", "example").stdout


def test_hooks_of_the_project_pass(chosen):
    chosen.run("git", "init", "--quiet")
    chosen.run("git", "add", ".")
    chosen.run("make", "lint")
