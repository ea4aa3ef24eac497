"""`make update` plays a history with edits: nothing of the user's is lost, and only true conflicts are conflicts.

The results stand in docs/updates.md of the rendered project, beside those of cruft.
"""

import json
import shutil

import pytest
from conftest import ROOT
from histories import (
    SLUG,
    begin,
    conflicts,
    edit,
    files,
    git,
    make_history,
    migration,
    package,
    render,
    run,
    update,
)

TABLE = "What updates to the next version and to the one after it did"
DOCS = ROOT / SLUG / "docs" / "updates.md"


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return make_history(tmp_path_factory.mktemp("history") / "template")


@pytest.fixture(scope="session")
def begun(template, tmp_path_factory):
    return begin(template, tmp_path_factory.mktemp("begun") / "project")


def no_edit(project):
    """nothing"""


def far_edit(project):
    """a line of a file, another line of which the template changed"""
    edit(project, "shop/views.py", "views_30 = 30", "views_30 = 'mine'")


def same_line(project):
    """the same line"""
    edit(project, "shop/views.py", "views_5 = 5", "views_5 = 'mine'")


def moved(project):
    """a file moved, and edited"""
    far_edit(project)
    (project / "shop" / "pages").mkdir()
    git(project, "mv", "shop/views.py", "shop/pages/views.py")


def deleted(project):
    """a file deleted"""
    git(project, "rm", "--quiet", "shop/stable.py")


def deleted_and_changed(project):
    """a file deleted that the template changed"""
    git(project, "rm", "--quiet", "shop/views.py")


def edited_and_deleted(project):
    """a file edited that the template deleted"""
    edit(project, "shop/leaving.py", "leaving_30 = 30", "leaving_30 = 'mine'")


def edited_and_renamed(project):
    """a file edited that the template renamed"""
    edit(project, "shop/old_name.py", "old_name_30 = 30", "old_name_30 = 'mine'")


def own_file_of_that_name(project):
    """a file of your own, with the name of a new one"""
    (project / "shop" / "new.py").write_text("own = 'mine'\n")


def ignored_file_of_that_name(project):
    """a file that git ignores, with the name of a new one"""
    (project / ".git" / "info" / "exclude").write_text("new.py\n")
    (project / "shop" / "new.py").write_text("own = 'mine'\n")


def binary(project):
    """a binary file"""
    (project / "shop" / "logo.bin").write_bytes(b"\0mine")


def own_dependency(project):
    """a dependency of your own, beside one that the template raised"""
    edit(project, "pyproject.toml", '    "alpha>=1",\n', '    "alpha>=1",\n    "beta>=1",  # mine\n')
    edit(project, "requirements.txt", package("alpha", "1.0"), package("alpha", "1.0") + package("beta", "1.5"))


def own_migration(project):
    """a migration of your own, beside one of the template's"""
    path = project / "shop" / "app" / "migrations" / "0002_mine.py"
    path.write_text(migration("mine", "0001_initial"))


def folder_renamed(project):
    """a folder renamed, with an edit"""
    edit(project, "shop/tools/one.py", "one_30 = 30", "one_30 = 'mine'")
    git(project, "mv", "shop/tools", "shop/gadgets")


def subfolder(project):
    """the same line, in a project that is a folder of its repository"""
    same_line(project)
    shutil.move(project / ".git", project.parent)


def readme_edited(project):
    """the README and the home page"""
    (project / "README.md").write_text("# Mine\n")
    (project / "shop" / "home.html").write_text("<h1>mine</h1>\n")


# Each edit, and what may conflict when the first and the second update meet it.
EDITS = {
    no_edit: ([], []),
    far_edit: ([], []),
    same_line: (["shop/views.py"], []),
    moved: ([], []),
    deleted: ([], []),
    deleted_and_changed: (["shop/views.py"], ["shop/views.py"]),
    edited_and_deleted: (["shop/leaving.py"], []),
    edited_and_renamed: ([], []),
    own_file_of_that_name: (["shop/new.py"], []),
    ignored_file_of_that_name: ([], []),
    binary: (["shop/logo.bin"], []),
    own_dependency: ([], []),
    own_migration: ([], []),
    folder_renamed: (["shop/gadgets/extra.py"], []),
    subfolder: (["shop/views.py"], []),
    readme_edited: ([], []),
}


def texts(project):
    """Return all lines of a project, but for those that a tool could not place."""
    found = {path: content for path, (content, _) in files(project).items() if not path.endswith((".rej", ".orig"))}
    return [line for content in found.values() for line in content.splitlines()]


def measure(project, ran, mine, marks):
    """Return in words what an update did: of the user's lines, and of the template's that it brings."""
    there = texts(project)
    lost = [line for line in mine if line not in there]
    missing = [line for line in marks if line not in there]
    rejects = [path for path in files(project) if path.endswith(".rej")]
    words = ["refused" if "Nothing was changed" in ran.stdout else f"exit {ran.returncode}"]
    counts = {"conflict": conflicts(project), "`.rej`": rejects, "line of yours lost": lost}
    counts |= {} if words == ["refused"] else {"line of the template's lost": missing}
    for what, found in counts.items():
        noun, rest = what.partition(" ")[::2]
        plural = "s" if len(found) > 1 and noun != "`.rej`" else ""
        words += [f"{len(found)} {noun}{plural} {rest}".rstrip()] if found else []
    return ", ".join(words)


def play(project, change, take, settled):
    """Change a project and update it twice; return what each update did, with what was printed."""
    change(project)
    git(project, "add", "-A")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Mine")
    mine = [line for line in texts(project) if b"mine" in line]
    results = []
    for version, word in (("v1.1.0", b"second"), ("v2.0.0", b"third")):
        ran = take(project, version)
        results.append((measure(project, ran, mine, MARKS[word]), conflicts(project), ran.stdout))
        settled(project)
    return results


MARKS = {
    b"second": [
        b"views = 'second'",
        b"renamed = 'second'",
        b"new = 'second'",
        b"tools = 'second'",
        b"extra = 'second'",
    ],
    b"third": [b"views = 'third'", b"renamed = 'third'", b"tools = 'third'"],
}


def settle(project):
    """Resolve conflicts for the user's side, and go on as the script said."""
    unmerged = conflicts(project)
    for path in unmerged:
        if run("git", "checkout", "--ours", path, cwd=project, check=False).returncode:
            git(project, "rm", "--quiet", "--force", path)
        else:
            git(project, "add", path)
    if unmerged:
        git(project, "-c", "core.editor=true", "cherry-pick", "--continue")
    assert git(project, "status", "--porcelain") == ""


def believe(project):
    """Commit what cruft left: it said that all is well."""
    git(project, "add", "-A")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Updated")


@pytest.mark.parametrize("change", EDITS, ids=lambda change: change.__name__)
def test_edits(template, begun, cruft, tmp_path, record_property, change):
    project = shutil.copytree(begun, tmp_path / "ours" / "shop", symlinks=True)

    ours = play(project, change, lambda project, version: update(project, "--to", version), settle)

    assert [unmerged for _, unmerged, _ in ours] == list(EDITS[change]), ours
    for (result, unmerged, said), version in zip(ours, ("v1.1.0", "v2.0.0"), strict=True):
        assert "lost" not in result, said
        collides = change is own_migration and version == "v1.1.0"
        assert ("0002_mine and 0002_template both follow" in said) == collides, said
        expected = "refused" if change is ignored_file_of_that_name else f"exit {int(bool(unmerged) or collides)}"
        assert result.startswith(expected), said
    if cruft:
        other = shutil.copytree(begun, tmp_path / "cruft" / "shop", symlinks=True)
        theirs = play(other, change, lambda project, version: update_with(cruft, project, version), believe)
        cells = (" → ".join(result for result, *_ in results) for results in (ours, theirs))
        row = f"| {change.__doc__} | {' | '.join(cells)} |"
        record_property(TABLE, row)
        assert row in DOCS.read_text(encoding="utf-8").splitlines()


def update_with(cruft, project, version):
    """Update a project with cruft."""
    return run(cruft, "update", "--skip-apply-ask", "--checkout", version, cwd=project, check=False)


def test_unedited_equals_the_fresh_render(template, begun, tmp_path):
    project = shutil.copytree(begun, tmp_path / "shop", symlinks=True)
    for version in ("v1.1.0", "v2.0.0"):
        ran = update(project, "--to", version)
        assert ran.returncode == 0, ran.stdout

        ours, fresh = files(project), files(render(template, tmp_path / version, version, description="A shop."))

        assert json.loads(ours[".cruft.json"][0]) == json.loads(fresh[".cruft.json"][0]) | {"checkout": version}
        assert {**ours, ".cruft.json": None} == {**fresh, ".cruft.json": None}
