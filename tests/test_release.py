"""`make release` tags what the CHANGELOG tells of, and nothing else."""

import re
import shutil
import sys
import tomllib

import pytest
from conftest import ROOT
from histories import commit, git, run

PYPROJECT = '[project]\nname = "template"\nversion = "{}"\n'
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-02-01)\n\n- More.\n\n## 0.1.0 (2026-01-01)\n\n- All.\n"


@pytest.fixture
def repository(tmp_path):
    """Two commits, of the versions 0.1.0 and 0.2.0."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "release.py", tmp_path / "scripts")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / "pyproject.toml").write_text(PYPROJECT.format(version))
        (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
        commit(tmp_path, version)
    return tmp_path


def release(repository, *arguments):
    return run(sys.executable, "scripts/release.py", *arguments, cwd=repository, check=False)


def test_head_and_an_older_commit(repository):
    assert release(repository).returncode == 0
    assert release(repository, "HEAD^").returncode == 0

    assert git(repository, "rev-parse", "v0.2.0^{commit}") == git(repository, "rev-parse", "HEAD")
    assert git(repository, "rev-parse", "v0.1.0^{commit}") == git(repository, "rev-parse", "HEAD^")
    assert git(repository, "cat-file", "-t", "v0.2.0") == "tag"


@pytest.mark.parametrize(
    ("changelog", "why"),
    [
        (CHANGELOG.replace("Unreleased\n", "Unreleased\n\n- New.\n"), '"Unreleased"; their heading should be "0.2.0 ('),
        (CHANGELOG.replace("0.2.0 (2026-02-01)", "0.2.0"), 'no entries under a heading such as "0.2.0 ('),
        (CHANGELOG.replace("- More.\n", ""), 'no entries under a heading such as "0.2.0 ('),
    ],
    ids=["unreleased", "no date", "no entries"],
)
def test_changelog_does_not_tell_of_it(repository, changelog, why):
    (repository / "CHANGELOG.md").write_text(changelog)
    commit(repository)

    ran = release(repository)

    assert ran.returncode == 1
    assert why in ran.stdout
    assert git(repository, "tag") == ""


def test_changes_that_are_not_committed(repository):
    (repository / "README.md").write_text("new\n")

    assert "not committed" in release(repository).stdout


def test_tag_is_there(repository):
    release(repository)

    assert "there is a tag v0.2.0 already" in release(repository).stdout


def test_older_than_the_newest(repository):
    git(repository, "tag", "v0.10.0")

    assert "0.2.0 is older than v0.10.0" in release(repository).stdout


def test_changelog_is_in_form():
    """Each version has a date and entries, the newest first, so that an update can show what is between two of them."""
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    released = headings[1:] if headings[0] == "Unreleased" else headings
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", heading) for heading in released)
    numbers = [tuple(map(int, heading.split()[0].split("."))) for heading in released]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] <= tuple(map(int, version.split(".")))
    assert all(re.search(r"^- ", part, re.MULTILINE) for part in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])
