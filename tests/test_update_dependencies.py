"""Updates merge locks and lists of dependencies package by package."""

import itertools
import sys

import pytest
from conftest import ROOT
from histories import package, run

sys.path.append(str(ROOT / "scripts" / "updates"))

from dependencies import merge_lists, merge_locks

NAMES = ("alpha", "beta", "gamma", "kappa")


def pyproject(items):
    return (
        f'[project]\nname = "shop"\ndependencies = [\n{"".join(f'    "{item}",\n' for item in items)}]\nreadme = "R"\n'
    )


def lock(**versions):
    return "# made\n" + "".join(package(name, version) for name, version in sorted(versions.items()))


def edits(suffix):
    """Return the lists after each edit that one side can make, by what it touches."""
    base = [f"{name}>=1" for name in NAMES]
    yield from ((name, [item.replace("1", suffix) if name in item else item for item in base]) for name in NAMES)
    yield from ((name, [item for item in base if name not in item]) for name in NAMES)
    for place, name in enumerate(("aardvark", "bat", "gnu", "zebra")):
        yield f"{name}{suffix}", [*base[:place], f"{name}{suffix}>=1", *base[place:]]


@pytest.mark.parametrize(("ours", "theirs"), [*itertools.product(edits("2"), edits("3"))], ids=lambda side: side[0])
def test_lists(tmp_path, ours, theirs):
    """Each side makes one edit: it is a conflict only if both touch the same package, and otherwise both are there."""
    base = pyproject(f"{name}>=1" for name in NAMES)
    old, new = merge_lists(base, pyproject(ours[1]), pyproject(theirs[1]))
    for name, text in (("ours", pyproject(ours[1])), ("base", old), ("theirs", new)):
        (tmp_path / name).write_text(text)

    merged = run("git", "merge-file", "-p", "ours", "base", "theirs", cwd=tmp_path, check=False)

    same = ours[0] == theirs[0]
    assert merged.returncode == int(same and ours[1] != theirs[1])
    if not same:
        before = {f"{name}>=1" for name in NAMES}
        sides = set(ours[1]), set(theirs[1])
        expected = (before & sides[0] & sides[1]) | (sides[0] - before) | (sides[1] - before)
        lines = merged.stdout.splitlines()
        assert {line.strip(' ",') for line in lines if line.startswith("    ")} == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        ({"alpha": "1"}, {"alpha": "2"}, {"alpha": "2"}),
        ({"alpha": "3"}, {"alpha": "2"}, {"alpha": "3"}),
        ({"alpha": "1.9"}, {"alpha": "1.10"}, {"alpha": "1.10"}),
        ({"alpha": "1", "mine": "1"}, {"alpha": "1", "new": "1"}, {"alpha": "1", "mine": "1", "new": "1"}),
        ({}, {"alpha": "1"}, {}),
        ({"alpha": "1"}, {}, {}),
        ({"alpha": "2"}, {}, {"alpha": "2"}),
        ({}, {"alpha": "2"}, {"alpha": "2"}),
        ({"alpha": "1", "both": "1"}, {"alpha": "1", "both": "2"}, {"alpha": "1", "both": "2"}),
    ],
)
def test_locks(ours, theirs, merged):
    assert merge_locks(lock(alpha="1"), lock(**ours), lock(**theirs)) == lock(**merged)
