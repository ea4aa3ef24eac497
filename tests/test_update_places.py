"""`make update` refuses in one sentence what it cannot do, and works wherever and however a project is kept."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from histories import (
    IDENTITY,
    SLUG,
    begin,
    commit,
    conflicts,
    edit,
    files,
    git,
    lines,
    make_history,
    package,
    render,
    run,
    state,
    update,
)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return make_history(tmp_path_factory.mktemp("places") / "template")


@pytest.fixture(scope="session")
def begun(template, tmp_path_factory):
    return begin(template, tmp_path_factory.mktemp("begun") / "project")


@pytest.fixture
def project(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "project" / begun.name, symlinks=True)


def change_record(project, **values):
    record = project / ".cruft.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | values))
    commit(project)


def unborn(project):
    shutil.rmtree(project / ".git")
    git(project, "init", "--quiet")
    git(project, "add", "-A")


def half_merged(project):
    git(project, "switch", "--quiet", "--create", "other")
    (project / "shop" / "views.py").write_text("other\n")
    commit(project)
    git(project, "switch", "--quiet", "main")
    (project / "shop" / "views.py").write_text("main\n")
    commit(project)
    run("git", "merge", "other", cwd=project, check=False)


def write(path, text="mine\n"):
    def prepare(project):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)

    return prepare


def ignored(project):
    (project / ".git" / "info" / "exclude").write_text("new.py\n")
    write("shop/new.py")(project)


def ignored_instead_of_a_folder(project):
    git(project, "rm", "-r", "--quiet", "shop/tools")
    git(project, "commit", "--quiet", "--message", "No tools")
    write("shop/tools")(project)


def ignored_in_a_renamed_folder(project):
    git(project, "mv", "shop/tools", "shop/gadgets")
    git(project, "commit", "--quiet", "--message", "Gadgets")
    (project / ".git" / "info" / "exclude").write_text("extra.py\n")
    write("shop/gadgets/extra.py")(project)


def no_record(project):
    git(project, "rm", "--quiet", ".cruft.json")
    git(project, "commit", "--quiet", "--message", "No record")


def removed_choice(project):
    update(project, "--to", "v2.0.0")
    change_record(project, context={"cookiecutter": {"project_slug": "shop", "colour": "green"}})


def staged(project):
    write("shop/views.py")(project)
    git(project, "add", "-A")


def write_and_commit(path, text):
    def prepare(project):
        write(path, text)(project)
        commit(project)

    return prepare


def skip(patterns):
    def prepare(project):
        text = (project / "pyproject.toml").read_text()
        write_and_commit("pyproject.toml", f"{text}\n[tool.cruft]\nskip = {patterns}\n")(project)

    return prepare


REFUSALS = {
    "dirty": (write("shop/views.py"), [], r"not committed \(shop/views\.py\)"),
    "staged": (staged, [], r"not committed \(shop/views\.py\)"),
    "unknown version": (None, ["--to", "v9"], r"'v9' is no version .* v1\.0\.0, v1\.1\.0, v2\.0\.0, main"),
    "neither true nor false": (None, ["--set", "use_x=perhaps"], "use_x=perhaps is neither true nor false"),
    "no choice": (None, ["--set", "colour=green"], "colour=green is not among the choices red, blue"),
    "no question": (None, ["--set", "use_y=1"], "does not ask 'use_y'; it asks project_slug, .*colour"),
    "slug": (None, ["--set", "project_slug=other"], "project_slug names the package"),
    "not an answer": (None, ["--set", "use_x"], "'use_x' is no answer; expected name=answer"),
    "recorded choice": (removed_choice, [], "colour=green is not among"),
    "downgrade": (lambda project: update(project), ["--to", "v1.0.0"], "not newer than v2.0.0.*DOWNGRADE=1"),
    "unborn": (unborn, [], "Nothing is committed here yet"),
    "half merged": (half_merged, [], "A merge is under way here.*git merge --abort"),
    "untracked": (write("shop/new.py"), [], r"adds shop/new\.py, which is here already"),
    "ignored": (ignored, [], r"adds shop/new\.py, which is here already"),
    "instead of a folder": (ignored_instead_of_a_folder, [], "adds shop/tools, which is here already"),
    "renamed folder": (ignored_in_a_renamed_folder, [], r"adds shop/gadgets/extra\.py, which is here already"),
    "not JSON": (write(".cruft.json", "{"), [], r"\.cruft\.json is damaged"),
    "a list": (write(".cruft.json", "[]"), [], r"\.cruft\.json is damaged"),
    "no commit": (lambda project: change_record(project, commit=None), [], "names None as the commit"),
    "other commit": (lambda project: change_record(project, commit="0" * 40), [], "says commit 0000000000, which"),
    "directory": (lambda project: change_record(project, directory="../x"), [], r"says directory '\.\./x'; expected"),
    "skip a text": (skip('"docs"'), [], r'skip = "docs"; expected a list'),
    "skip all": (skip('["."]'), [], r'skip = \["\."\]; expected a list'),
    "skip numbers": (skip("[1]"), [], r"skip = \[1\]; expected a list"),
    "skip outside": (skip('["../../*"]'), [], r'skip = \["\.\./\.\./\*"\]; expected a list of paths in the project'),
    "recorded skip": (lambda project: change_record(project, skip="docs"), [], r'\.cruft\.json says skip = "docs"'),
    "unexpected": (write_and_commit("pyproject.toml", "tool = 1\n"), [], r"AttributeError in __main__\.py, line \d+: "),
    "broken pyproject": (write_and_commit("pyproject.toml", "["), [], r"pyproject\.toml cannot be read"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_leave_everything_as_it_was(project, case):
    prepare, options, sentence = REFUSALS[case]
    record = (project / ".cruft.json").read_text()
    if prepare:
        prepare(project)
    if "JSON" in case or "list" in case:
        commit(project)
    before = state(project)

    clone = project.parent / "clone"
    git(project.parent, "clone", "--quiet", json.loads(record)["template"], clone)
    ran = run(sys.executable, "-I", clone / "scripts" / "updates", *options, cwd=project, check=False)

    assert ran.returncode == 2, ran.stdout
    assert re.fullmatch(rf"Nothing was changed: .*{sentence}.*\n", ran.stdout), ran.stdout
    assert state(project) == before


def test_record_is_missing(template, project):
    no_record(project)
    before = state(project)
    git(project.parent, "clone", "--quiet", template, "clone")

    ran = run(sys.executable, "-I", "../clone/scripts/updates", cwd=project, check=False)

    assert ran.returncode == 2
    assert ran.stdout == "Nothing was changed: There is no .cruft.json here; docs/updates.md says how to write it.\n"
    assert state(project) == before


def test_no_identity(project):
    before = state(project)
    nobody = dict.fromkeys(IDENTITY, "")

    ran = update(project, **nobody, EMAIL="")

    assert ran.returncode == 2
    assert "git config user.name" in ran.stdout
    assert state(project) == before


def test_owner_whom_git_does_not_trust(project):
    before = state(project)

    ran = update(project, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")

    assert ran.returncode == 2
    assert "detected dubious ownership" in ran.stdout
    assert "safe.directory" in ran.stdout
    assert "git init" not in ran.stdout
    assert state(project) == before


def test_signature_fails(project):
    git(project, "config", "commit.gpgsign", "true")
    git(project, "config", "gpg.program", "false")
    before = state(project)

    ran = update(project)

    assert ran.returncode == 2
    assert "git could not commit the update" in ran.stdout
    after = state(project)
    assert (after[0], after[2]) == (before[0], before[2])
    assert git(project, "status", "--porcelain") == ""


def test_check(project):
    before = state(project)
    write("shop/views.py")(project)
    ahead = update(project, "--check")
    git(project, "checkout", "--quiet", "shop/views.py")
    assert (ahead.returncode, ahead.stdout) == (1, "This project is at v1.0.0; `make update` takes it to v2.0.0.\n")
    assert state(project)[::2] == before[::2]

    update(project)
    current = update(project, "--check")

    assert (current.returncode, current.stdout) == (0, "This project is at v2.0.0; there is nothing newer.\n")
    older = update(project, "--check", "--to", "v1.0.0")
    assert older.returncode == 0
    assert older.stdout == "This project is at v2.0.0; v1.0.0 is not newer, and only DOWNGRADE=1 takes it.\n"
    assert update(project, "--check", "--to", "v1.0.0", "--downgrade").returncode == 1


def test_dry_run_shows_the_difference(project):
    (project / "shop" / "views.py").write_text(lines(line_5="line_5 = 'mine'"))
    commit(project)
    before = state(project)

    ran = update(project, "--dry-run")

    assert ran.returncode == 1
    assert "+extra = 'second'" in ran.stdout
    assert "There would be conflicts in:\n  shop/views.py" in ran.stdout
    assert state(project) == before


def test_what_is_said(project):
    """The versions, the changelog between them, questions, what happened, and what to do next: in this order."""
    said = update(project, "--set", "use_x=yes description='Mine 🚀, \"quoted\" {{ 1 }} and $HOME'").stdout

    order = [
        "From v1.0.0 to v2.0.0 of ",
        "2.0.0 (2026-03-01)",
        "- The third.",
        "1.1.0 (2026-02-01)",
        "- The second,\n    in two lines.",
        "use_x = true",
        "New questions",
        "colour = red",
        "files changed, in commit",
        "Next:",
    ]
    assert [text for text in order if text not in said] == []
    assert sorted(order, key=said.index) == order
    assert "The first." not in said
    answers = json.loads((project / ".cruft.json").read_text())["context"]["cookiecutter"]
    assert answers["description"] == 'Mine 🚀, "quoted" {{ 1 }} and $HOME'
    assert answers["use_x"] is True
    assert update(project).stdout == "This project is at v2.0.0 already, with these answers.\n"


def test_question_that_is_gone(template, project, tmp_path):
    other = shutil.copytree(template, tmp_path / "other", symlinks=True)
    questions = json.loads((other / "cookiecutter.json").read_text())
    del questions["use_x"]
    (other / "cookiecutter.json").write_text(json.dumps(questions))
    git(other, "mv", f"{SLUG}/{SLUG}/{{% if cookiecutter.use_x %}}x.py{{% endif %}}", f"{SLUG}/{SLUG}/x.py")
    commit(other)
    git(other, "tag", "v3.0.0")
    change_record(project, template=str(other))

    ran = update(project)

    assert ran.returncode == 0, ran.stdout
    assert "No longer asked:\n  use_x = false" in ran.stdout
    assert "use_x" not in (project / ".cruft.json").read_text()


@pytest.mark.parametrize("option", ["--to=v1.1.0", "--to=1.1.0", "--to=main"])
def test_names_of_versions(project, option):
    assert update(project, option).returncode == 0


def test_downgrade_with_the_flag(template, project, tmp_path):
    update(project)

    assert update(project, "--to", "v1.0.0", "--downgrade", "--unapplied").returncode == 0
    assert not (project / "shop" / "new.py").exists()


def test_option_on_and_off(template, project, tmp_path):
    (project / "shop" / "views.py").write_text(lines(line_30="line_30 = 'mine'"))
    commit(project)
    update(project)
    before = files(project)

    assert update(project, "--set", "use_x=true").returncode == 0
    assert (project / "shop" / "x.py").exists()
    assert update(project, "--set", "use_x=false").returncode == 0
    assert files(project) == before


def test_option_off_with_an_edited_file(project):
    update(project, "--set", "use_x=true")
    (project / "shop" / "x.py").write_text((project / "shop" / "x.py").read_text() + "mine = 1\n")
    commit(project)

    assert update(project, "--set", "use_x=false").returncode == 1
    assert conflicts(project) == ["shop/x.py"]
    assert "mine = 1" in (project / "shop" / "x.py").read_text()
    git(project, "cherry-pick", "--abort")
    assert git(project, "status", "--porcelain") == ""


def test_migrations_that_go(template, project, tmp_path):
    update(project)
    before = state(project)

    refused = update(project, "--to", "v1.0.0", "--downgrade")

    assert refused.returncode == 2
    assert "manage.py migrate app 0001_initial" in refused.stdout
    assert "UNAPPLIED=1" in refused.stdout
    assert state(project) == before


def test_skip(project):
    skip('["shop/tools/", "*/views.py", "**/logo.*", "/new_name.py"]')(project)
    before = files(project)

    assert update(project).returncode == 0

    after = files(project)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert "shop/new_name.py" in changed
    assert [path for path in changed if "tools" in path or "views" in path or "logo" in path] == []


@pytest.mark.parametrize("option", ["--dry-run", "--downgrade"])
@pytest.mark.parametrize("pattern", ["../../../outside/*", "../../../outside", "{outside}"])
def test_skip_names_nothing_outside(project, tmp_path, option, pattern):
    outside = tmp_path / "outside" / "mine"
    outside.parent.mkdir()
    outside.write_text("mine\n")
    skip(json.dumps([pattern.format(outside=outside)]))(project)

    update(project, option, TMPDIR=str(tmp_path))

    assert outside.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml"])
def test_skip_what_locks_are_made_from(project, name):
    edit(project, "requirements.txt", package("zulu", "1.0"), package("yankee", "1.0") + package("zulu", "1.0"))
    skip(json.dumps([name]))(project)
    before = files(project)

    ran = update(project)

    assert ran.returncode == 0, ran.stdout
    assert files(project)[name] == before[name]
    assert "yankee==1.0" in (project / "requirements.txt").read_text()
    assert "alpha==3.0" in (project / "requirements.txt").read_text()
    assert "# locked" in (project / "requirements.txt").read_text()


def test_what_is_the_users_is_left_alone_once_edited(project):
    (project / "README.md").write_text("# Mine\n")
    commit(project)

    ran = update(project)

    assert ran.returncode == 0, ran.stdout
    assert (project / "README.md").read_text() == "# Mine\n"
    assert "Two." not in (project / "README.md").read_text()
    shown = re.search(r"git diff \w+ \w+", ran.stdout)
    assert shown, ran.stdout
    assert "+Two." in git(project, *shown[0].split()[1:])


def test_lock_cannot_be_made(project):
    (project / "pyproject.toml").write_text((project / "pyproject.toml").read_text().replace("zulu>=1", "yankee>=1"))
    (project / "requirements.txt").write_text(
        (project / "requirements.txt").read_text().replace("zulu==1.0", "zulu==9.0")
    )
    commit(project)

    ran = update(project, PATH=without(project, "make"))

    assert ran.returncode == 0, ran.stdout
    assert "`make lock`" in ran.stdout
    assert '"yankee>=1"' in (project / "pyproject.toml").read_text()
    assert re.findall("^.*==.*$", (project / "requirements.txt").read_text(), re.MULTILINE) == [
        "alpha==3.0 \\",
        "django==6.1 \\",
        "zulu==9.0 \\",
    ]


def without(project, name):
    """Return a PATH with all programs but one."""
    folder = project.parent / "bin"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for program in os.scandir(place) if os.path.isdir(place) else ():
            if program.name != name and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program.path)
    return str(folder)


def equals_fresh(template, project, tmp_path):
    fresh = files(render(template, tmp_path / "fresh", description="A shop."))
    assert files(project) == fresh


def test_subfolder_of_a_repository(template, begun, tmp_path):
    (tmp_path / "mono" / "sites").mkdir(parents=True)
    project = shutil.copytree(begun, tmp_path / "mono" / "sites" / "my shop", ignore=shutil.ignore_patterns(".git"))
    (tmp_path / "mono" / "Makefile").write_text("all:\n")
    git(tmp_path / "mono", "init", "--quiet")
    commit(tmp_path / "mono")

    ran = update(project)

    assert ran.returncode == 0, ran.stdout
    assert files(tmp_path / "mono")["Makefile"][0] == b"all:\n"
    equals_fresh(template, project, tmp_path)


def test_crlf_in_the_working_tree(template, begun, project, tmp_path):
    git(begun, "clone", "--quiet", "--config", "core.autocrlf=true", begun, tmp_path / "clone" / "shop")
    clone = tmp_path / "clone" / "shop"
    for path in ("shop/views.py", "shop/tools/one.py", "pyproject.toml"):
        (clone / path).write_bytes((clone / path).read_bytes().replace(b"\n", b"\r\n"))

    ran = update(clone)

    assert ran.returncode == 0, ran.stdout
    assert git(clone, "diff", "--stat", "HEAD^", "HEAD", "--", "shop/views.py").endswith(
        "2 insertions(+), 2 deletions(-)"
    )


def test_crlf_in_the_repository(project):
    git(project, "rm", "--quiet", ".gitattributes")
    commit(project)
    for path in ("shop/views.py", "pyproject.toml", "requirements.txt", "shop/tools/one.py"):
        (project / path).write_bytes((project / path).read_bytes().replace(b"\n", b"\r\n"))
    (project / "shop" / "views.py").write_bytes((project / "shop" / "views.py").read_bytes() + b"mine = 1\r\n")
    git(project, "config", "core.autocrlf", "false")
    commit(project)
    assert "i/crlf" in git(project, "ls-files", "--eol", "shop/views.py")

    ran = update(project)

    assert conflicts(project) == [], ran.stdout
    views = (project / "shop" / "views.py").read_bytes()
    assert views.count(b"\r\n") == views.count(b"\n") == 41


def test_one_line_with_crlf(project):
    git(project, "rm", "--quiet", ".gitattributes")
    git(project, "config", "core.autocrlf", "false")
    views = project / "shop" / "views.py"
    views.write_bytes(views.read_bytes().replace(b"views_30 = 30\n", b"views_30 = 30\r\n"))
    commit(project)

    ran = update(project)

    assert ran.returncode == 0, ran.stdout
    assert views.read_bytes().count(b"\r\n") == 1


def test_shallow_clone_and_detached_head(template, begun, tmp_path):
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{begun}", "shop")
    git(tmp_path / "shop", "checkout", "--quiet", "--detach")

    assert update(tmp_path / "shop").returncode == 0
    equals_fresh(template, tmp_path / "shop", tmp_path)


def test_linked_worktree(template, project, tmp_path):
    git(project, "worktree", "add", "--quiet", "-b", "try", tmp_path / "tree" / "shop")

    assert update(tmp_path / "tree" / "shop").returncode == 0
    assert git(project, "rev-parse", "main") != git(project, "rev-parse", "try")
    equals_fresh(template, tmp_path / "tree" / "shop", tmp_path)


CONFIGURATION = """
[core]
	autocrlf = true
	safecrlf = true
	fileMode = false
	excludesFile = {folder}/ignore
	hooksPath = {folder}/hooks
	pager = false
[color]
	ui = always
[commit]
	verbose = true
[diff]
	external = false
	noprefix = true
	renames = false
[init]
	defaultObjectFormat = sha256
[merge]
	ff = only
	renames = false
[user]
	useConfigOnly = true
"""


def test_somebodys_configuration_changes_nothing(template, project, tmp_path):
    (tmp_path / "hooks").mkdir()
    for name in ("pre-commit", "commit-msg", "prepare-commit-msg", "post-commit", "post-checkout"):
        (tmp_path / "hooks" / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "hooks" / name).chmod(0o755)
    (tmp_path / "ignore").write_text("*.py\n*.json\n")
    (tmp_path / "gitconfig").write_text(CONFIGURATION.format(folder=tmp_path))
    (tmp_path / "rc").write_text("default_context:\n  description: Not this\n  use_x: true\n  colour: blue\n")
    somebodys = {
        "COOKIECUTTER_CONFIG": str(tmp_path / "rc"),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "HOME": str(tmp_path),
    }
    moved = shutil.copytree(project, tmp_path / "moved", symlinks=True)
    git(moved, "mv", "shop/views.py", "shop/sights.py")
    commit(moved)

    ran = [update(folder, **somebodys) for folder in (project, moved)]

    assert [each.returncode for each in ran] == [0, 0], ran
    equals_fresh(template, project, tmp_path)
    assert "third" in (moved / "shop" / "sights.py").read_text()
    assert not (tmp_path / ".cookiecutter_replay").exists()


def test_strange_files(template, project, tmp_path):
    names = ["two words.txt", "naïve ☃.txt", "new\nline.txt", "-dash", '"quote"', "shop/[x].py"]
    for name in names:
        (project / name).write_text("mine\n")
    os.symlink("nowhere", project / "dangling")
    (project / "shop" / "stable.py").chmod(0o755)
    (project / "shop" / "views.py").unlink()
    os.symlink("stable.py", project / "shop" / "views.py")
    commit(project)
    module = make_submodule(tmp_path)
    git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", module, "vendor/module")
    commit(project)
    (project / "vendor" / "module" / "file").write_text("changed there\n")
    before = files(project)

    ran = update(project)

    assert conflicts(project)[0] == "shop/views.py", ran.stdout
    after = files(project)
    assert [name for name in [*names, "dangling", "vendor/module/file"] if before[name] != after.get(name)] == []
    assert os.access(project / "shop" / "stable.py", os.X_OK)
    git(project, "cherry-pick", "--abort")
    assert files(project) == before


def test_name_with_a_tab_in_a_conflict(template, project, tmp_path):
    other = shutil.copytree(template, tmp_path / "other", symlinks=True)
    (other / SLUG / "a\tb").write_text("theirs\n")
    commit(other)
    git(other, "tag", "v3.0.0")
    (project / "a\tb").write_text("mine\n")
    change_record(project, template=str(other))

    ran = update(project)

    assert ran.returncode == 1
    assert "\n  a\tb\n" in ran.stdout


def make_submodule(folder):
    module = folder / "module"
    module.mkdir()
    git(module, "init", "--quiet")
    (module / "file").write_text("there\n")
    commit(module)
    return module


def test_mode_and_link_in_the_template(template, project, tmp_path):
    other = shutil.copytree(template, tmp_path / "other", symlinks=True)
    (other / SLUG / "bin" / "new").write_text("#!/bin/sh\n")
    (other / SLUG / "bin" / "new").chmod(0o755)
    commit(other)
    git(other, "tag", "v3.0.0")
    change_record(project, template=str(other))
    git(project, "config", "core.fileMode", "false")

    assert update(project).returncode == 0
    assert git(project, "ls-files", "--stage", "bin").count("100755") == 2


def meanwhile(folder, stage, script):
    """Return a PATH with a git that runs a script before the first time that it does something."""
    programs = folder / "programs"
    programs.mkdir()
    real = shutil.which("git")
    (programs / "git").write_text(
        f'#!/bin/sh\ncase " $* " in *" {stage} "*)\n'
        f'mkdir {folder}/reached 2>/dev/null && ({script}) >{folder}/said 2>&1;;\nesac\nexec {real} "$@"\n'
    )
    (programs / "git").chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


MEANWHILE = {
    "edit": ("echo mine >>shop/stable.py", r"not committed \(shop/stable\.py\)"),
    "edit of what is updated": ("echo mine >>shop/views.py", r"not committed \(shop/views\.py\)"),
    "commit": ("git commit --quiet --allow-empty --message Mine", "HEAD moved while the update was made ready"),
    "cherry-pick": ("git cherry-pick other", "A cherry-pick is under way here"),
}


@pytest.mark.parametrize("case", MEANWHILE)
def test_what_somebody_does_while_the_update_is_made_ready(project, tmp_path, case):
    script, sentence = MEANWHILE[case]
    half_merged(project)
    git(project, "merge", "--abort")
    path = meanwhile(tmp_path, "merge-tree", script)
    expected = shutil.copytree(project, tmp_path / "expected", symlinks=True)
    run("sh", "-c", script, cwd=expected, check=False)

    ran = update(project, PATH=path)

    assert ran.returncode == 2, ran.stdout
    assert re.search(rf"^Nothing was changed: .*{sentence}", ran.stdout, re.MULTILINE), ran.stdout
    for what in (("status", "--porcelain"), ("diff", "HEAD"), ("ls-files", "--stage"), ("log", "--format=%s")):
        assert git(project, *what) == git(expected, *what)
    assert files(project) == files(expected)


def test_cherry_pick_of_somebody_else_is_not_aborted(project, tmp_path):
    half_merged(project)
    git(project, "merge", "--abort")
    path = meanwhile(tmp_path, "cherry-pick", "git -c core.pager=cat cherry-pick other")

    ran = update(project, PATH=path)

    assert ran.returncode == 2, ran.stdout
    assert git(project, "rev-parse", "CHERRY_PICK_HEAD") == git(project, "rev-parse", "other")
    assert conflicts(project) == ["shop/views.py"]


def test_two_updates_at_the_same_time(template, project, tmp_path):
    git(tmp_path, "clone", "--quiet", template, "second")
    second = f"{sys.executable} -I {tmp_path}/second/scripts/updates --to v1.1.0"
    path = meanwhile(tmp_path, "cherry-pick", second)

    ran = update(project, PATH=path)

    assert ran.returncode == 0, ran.stdout
    assert "Nothing was changed: Another update is under way here" in (tmp_path / "said").read_text()
    assert git(project, "status", "--porcelain") == ""
    equals_fresh(template, project, tmp_path)


def test_line_ends_alone_are_no_change(begun, tmp_path):
    """Only what differs in nothing else is staged."""
    git(begun, "clone", "--quiet", begun, tmp_path / "clone" / "shop")
    clone = tmp_path / "clone" / "shop"
    for path in ("shop/views.py", "shop/stable.py"):
        (clone / path).write_bytes((clone / path).read_bytes().replace(b"\n", b"\r\n"))

    ran = update(clone)

    assert ran.returncode == 0, ran.stdout
    assert git(clone, "status", "--porcelain") == ""


def test_resolutions_of_rerere(project, tmp_path):
    git(project, "config", "rerere.enabled", "true")
    git(project, "config", "rerere.autoUpdate", "true")
    (project / "shop" / "views.py").write_text(lines(line_5="line_5 = 'mine'"))
    commit(project)
    assert update(project).returncode == 1
    (project / "shop" / "views.py").write_text(lines(line_5="line_5 = 'both'"))
    git(project, "add", "-A")
    git(project, "-c", "core.editor=true", "cherry-pick", "--continue")
    git(project, "reset", "--quiet", "--hard", "HEAD^")

    ran = update(project)

    assert ran.returncode == 1, ran.stdout
    assert conflicts(project) == ["shop/views.py"], ran.stdout
    assert "line_5 = 'both'" in (project / "shop" / "views.py").read_text()


STAGES = ("rev-parse", "read-tree", "commit-tree", "merge-tree", "cherry-pick", "--short")


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted(template, project, tmp_path, stage):
    """Ctrl-C, which reaches git, too, while git does something: all is as it was, or all is done."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        f'#!/bin/sh\ncase " $* " in *" {stage} "*) touch {tmp_path}/reached; sleep 1;; esac\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    (programs / "git").chmod(0o755)
    git(tmp_path, "clone", "--quiet", template, "clone")
    before = state(project)
    path = f"{programs}:{os.environ['PATH']}:{sys.base_prefix}/bin"
    with subprocess.Popen(
        [sys.executable, tmp_path / "clone" / "scripts" / "update.py"],
        cwd=project,
        env=os.environ | IDENTITY | {"PATH": path, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        while not (tmp_path / "reached").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0].decode()

    if stage in ("cherry-pick", "--short"):
        assert process.returncode == 0, said
        equals_fresh(template, project, tmp_path)
        assert git(project, "status", "--porcelain") == ""
    else:
        assert "Nothing was changed" in said
        assert process.returncode == 130
        assert state(project) == before
    assert not [*tmp_path.glob("update-*"), *tmp_path.glob("tmp*")]
