"""Merge another version of the template, or other answers, into the project at hand.

Both versions are rendered, the recorded and the wanted one. Their difference is committed beside the project's
history, and `git cherry-pick` takes it over. Until then nothing of the project is touched, so that whatever fails
before leaves it as it was.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import traceback
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from dependencies import LOCKS, merge_lists, merge_locks
from git import MERGE, PICK, Git, GitError, Refusal, commit_tree_of, decode
from migrations import Migrations
from template import RECORD, Record, Template

HERE = Path(__file__).resolve().parent
UNFINISHED = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


def arguments():
    """Return what was asked for; the variables of `make update` are these options."""
    parser = argparse.ArgumentParser(prog="make update", description=__doc__.partition("\n")[0])
    parser.add_argument("--to", metavar="VERSION", help="the version to take: a tag, a branch or a commit")
    parser.add_argument("--set", metavar="NAME=ANSWER", action="append", default=[], help="another answer, or several")
    parser.add_argument("--check", action="store_true", help="say whether there is a newer version; status 1 if so")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    parser.add_argument("--downgrade", action="store_true", help="allow a version that the project is ahead of")
    parser.add_argument(
        "--unapplied", action="store_true", help="the migrations that go are unapplied on all databases"
    )
    return parser.parse_args()


def main():
    """Update, and say so in order: what will happen, what happened, what to do next. Return the exit status."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="update-") as scratch:
        project = Project(Path.cwd())
        template = Template(*project.clone_of(HERE), Path(scratch))
        recorded = template.recorded(project.record)
        wanted = template.wanted(options.to, project.record)
        if options.check:
            return check(template, recorded, wanted, options.downgrade)

        project.require_rest(Path(scratch))
        update = Update(project, template, recorded, wanted, options)
        if update.is_empty():
            print(f"This project is at {template.name(recorded)} already, with these answers.")
            return 0
        update.prepare()
        update.say_what_will_happen()
        return update.show() if options.dry_run else update.apply()


def check(template, recorded, wanted, downgrade):
    """Say whether the template moved on; return 1 if so."""
    name, ours = template.name(wanted), template.name(recorded)
    if wanted == recorded:
        print(f"This project is at {ours}; there is nothing newer.")
    elif not downgrade and not template.has(recorded, wanted):
        print(f"This project is at {ours}; {name} is not newer, and only DOWNGRADE=1 takes it.")
    else:
        print(f"This project is at {ours}; `make update` takes it to {name}.")
        return 1
    return 0


class Project:
    """The project to update: a repository, or a folder of one."""

    def __init__(self, folder):
        inside = Git(folder)
        ran = inside.run("rev-parse", "--show-toplevel")
        if b"not a git repository" in ran.stderr:
            raise Refusal(f"{folder} is not in a git repository: git init && git add . && git commit")
        if ran.returncode:
            raise Refusal(" ".join(decode(ran.stderr).split()))
        self.git = Git(decode(ran.stdout).rstrip("\n"))
        self.prefix = inside("rev-parse", "--show-prefix")
        self.folder = folder
        file = folder / RECORD
        if not file.is_file():
            raise Refusal(f"There is no {RECORD} here; docs/updates.md says how to write it.")
        self.record = Record(file.read_bytes())

    def clone_of(self, here):
        """Return the clone of the template that this runs from, and the template's folder in it."""
        clone = Git(here)("rev-parse", "--show-toplevel")
        return clone, self.record.directory

    def require_rest(self, scratch):
        """Refuse to begin where git could not go back to."""
        if self.git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
            raise Refusal("Nothing is committed here yet: git add . && git commit")
        self.require_clean(scratch)
        if self.read(RECORD) is None:
            raise Refusal(f"{RECORD} is not committed: git add -f {RECORD} && git commit")
        if self.git.ask("var", "GIT_COMMITTER_IDENT") is None:
            raise Refusal("git has no name for who commits: git config user.name … && git config user.email …")

    def require_clean(self, scratch):
        """Refuse where something is under way, or changed."""
        for file, what in UNFINISHED.items():
            if self.place(file).exists():
                raise Refusal(f"A {what} is under way here: finish it, or git {what} --abort")
        changed = self.changed(scratch / "index-copy")
        if changed:
            raise Refusal(f"There are changes that are not committed ({shortened(sorted(changed))}).")

    def place(self, name):
        """Return the path of a file of git's own."""
        return self.git.folder / self.git("rev-parse", "--git-path", name)

    @contextlib.contextmanager
    def locked(self):
        """Keep other updates of this project away."""
        file = self.place("template-update.lock")
        try:
            file.open("x").close()
        except FileExistsError:
            raise Refusal(f"Another update is under way here; if not, one was killed: rm {file}") from None
        try:
            yield
        finally:
            file.unlink()

    def changed(self, copy):
        """Return the paths of changed files. Those whose line ends alone are others count as unchanged."""
        # `git diff` writes to the index what it finds out about files.
        shutil.copyfile(self.place("index"), copy)
        index = {"GIT_INDEX_FILE": str(copy)}
        diff = ("diff", "--name-only", "-z", "--no-renames", "--ignore-submodules=dirty")
        return {*self.git.list(*diff, **index), *self.git.list(*diff, "--cached", "HEAD", **index)}

    def read(self, path):
        """Return the bytes of a committed file, or None."""
        ran = self.git.run("cat-file", "blob", f"HEAD:{self.prefix}{path}")
        return None if ran.returncode else ran.stdout


class Update:
    """One update: from two renderings to a commit of the project."""

    def __init__(self, project, template, recorded, wanted, options):
        self.project, self.template = project, template
        self.recorded, self.wanted = recorded, wanted
        self.options = options
        given = answers_in(options.set)
        self.asked_before = template.questions(recorded)
        self.asked = template.questions(wanted)
        if unknown := [name for name in given if name not in self.asked]:
            raise Refusal(f"The template does not ask {unknown[0]!r}; it asks {', '.join(self.asked)}.")
        if "project_slug" in given:
            raise Refusal("project_slug names the package, which your own code imports: an update cannot change it.")
        known = {name: answer for name, answer in project.record.answers.items() if name in self.asked_before}
        self.before = template.answers(recorded, known)
        self.after = template.answers(wanted, project.record.answers | given)
        if not (options.downgrade or template.has(recorded, wanted)):
            name, ours = template.name(wanted), template.name(recorded)
            raise Refusal(
                f"{name} is not newer than {ours}, which this project is at: DOWNGRADE=1 takes it all the same."
            )
        self.left_alone, self.apps_left_alone, self.notes = [], [], []

    def is_empty(self):
        """Say whether both renderings are the same anyway."""
        return self.wanted == self.recorded and self.before == self.after

    def say_what_will_happen(self):
        """Print the versions, the entries of the changelog between them, and what is asked otherwise."""
        old, new = self.template.name(self.recorded), self.template.name(self.wanted)
        print(f"From {old} to {new} of {self.project.record.template}" if new != old else f"Staying at {old}")
        for entry in self.template.entries(self.recorded, self.wanted):
            print(f"\n  {entry}" if entry[0] not in "-*" else "  " + entry.replace("\n", "\n  "))
        changed = [name for name in self.asked if name in self.asked_before and self.before[name] != self.after[name]]
        new = [name for name in self.asked if name not in self.asked_before]
        gone = [name for name in self.asked_before if name not in self.asked]
        for title, names, answers in (
            ("Other answers", changed, self.after),
            ('New questions, with the answer used (SET="name=answer" gives another)', new, self.after),
            ("No longer asked", gone, self.before),
        ):
            if names:
                print(f"\n{title}:", *(f"  {name} = {shown(answers[name])}" for name in names), sep="\n")
        if self.project.record.content.get("uncommitted"):
            print("\nThe project was rendered from uncommitted changes of the template: they are taken for yours.")
        print()

    def prepare(self):
        """Make the commit to take over, and look at what git would make of it."""
        with ThreadPoolExecutor() as pool:
            versions = (self.recorded, self.before), (self.wanted, self.after)
            old, new = pool.map(self.template.render, *zip(*versions, strict=True))
        self.skip(old, new)
        self.keep_what_is_the_users(old, new)
        self.merge_dependencies(old, new)
        self.move_record(old, new)
        self.take_over_line_ends(old, new)
        self.forecast(old, new)
        self.refuse_files_in_the_way()
        self.look_at_migrations()

    def skip(self, old, new):
        """Leave out what [tool.cruft] skip names."""
        patterns = skipped(self.project)
        for folder in (old, new):
            for path in [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]:
                if any(matches(path.relative_to(folder).parts, pattern) for pattern in patterns):
                    path.unlink()

    def keep_what_is_the_users(self, old, new):
        """Leave out what is written once, if it is no longer as it was written: files, and apps as a whole."""
        slug = self.before.get("project_slug", "")
        changed = changed_files(old, new)
        for name in (name.replace("{slug}", slug) for name in self.template.written_once(self.wanted)):
            inside = [path for path in changed if PurePosixPath(path).is_relative_to(name)]
            edited = [path for path in inside if self.is_edited(old, path)]
            # An app is one thing: a migration is of no use without the models that it follows.
            if inside and (old / name / "apps.py").is_file():
                files = [file.relative_to(old).as_posix() for file in (old / name).rglob("*") if file.is_file()]
                if edited or any(self.is_edited(old, path) for path in files):
                    edited = inside
                    self.apps_left_alone.append(name)
            self.left_alone += edited
        for path in self.left_alone:
            for side, aside in ((old, "yours-before"), (new, "yours-after")):
                place = self.template.scratch / aside / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if (side / path).is_file():
                    (side / path).rename(place)

    def is_edited(self, old, path):
        """Say whether the project has a file otherwise than it was written."""
        written = (old / path).read_bytes() if (old / path).is_file() else None
        return unified(self.project.read(path)) != unified(written)

    def merge_dependencies(self, old, new):
        """Have git see the lists of dependencies and the locks as merged already, wherever both sides changed them."""
        ours = {name: self.project.read(name) for name in ("pyproject.toml", *LOCKS)}
        ours = {name: decode(unified(content)) for name, content in ours.items() if content is not None}
        sides = {name: [read(old / name), read(new / name)] for name in ours}
        sides = {name: both for name, both in sides.items() if None not in both}
        if "pyproject.toml" in sides:
            before, after = sides["pyproject.toml"]
            for side, text in zip((old, new), merge_lists(before, ours["pyproject.toml"], after), strict=True):
                write(side / "pyproject.toml", text)
        merged = {}
        for name in LOCKS:
            if name in sides and ours[name] not in sides[name] and sides[name][0] != sides[name][1]:
                merged[name] = merge_locks(sides[name][0], ours[name], sides[name][1])
        if merged:
            merged |= self.lock(old, new, ours, merged)
        for name, text in merged.items():
            write(old / name, ours[name])
            write(new / name, text)

    def lock(self, old, new, ours, merged):
        """Return the locks as `make lock` makes them from the merged ones, or say why not and return nothing."""
        folder = self.template.scratch / "lock"
        folder.mkdir()
        texts = [read(old / "pyproject.toml"), read(new / "pyproject.toml")]
        if None in texts:
            texts = [ours.get("pyproject.toml", "")] * 2
        for name, text in zip(("ours", "base", "theirs"), (ours.get("pyproject.toml", ""), *texts), strict=True):
            write(folder / name, text)
        content = Git(folder).run("merge-file", "-p", "ours", "base", "theirs")
        if content.returncode:
            self.notes.append("When pyproject.toml is merged: make lock")
            return {}
        (folder / "pyproject.toml").write_bytes(content.stdout)
        write(folder / "Makefile", read(new / "Makefile") or decode(self.project.read("Makefile") or b""))
        for name in LOCKS:
            write(folder / name, merged.get(name) or read(new / name) or "")
        command = ["make", "--no-print-directory", "lock", f"UV={os.environ.get('UV', 'uv')}"]
        quiet = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "ARGS")}
        try:
            ran = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, stdin=subprocess.DEVNULL)
        except OSError:
            ran = None
        if ran is None or ran.returncode:
            self.notes.append("The locks were merged, but `make lock` failed here (offline?): run it when it can.")
            return {}
        return {name: read(folder / name) for name in merged}

    def move_record(self, old, new):
        """Have the record say the new version."""
        record = self.project.record
        checkout = self.options.to or (record.checkout if record.checkout not in self.template.releases else None)
        (old / RECORD).write_bytes(self.project.read(RECORD))
        write(new / RECORD, record.moved(self.wanted, checkout, self.after))

    def take_over_line_ends(self, old, new):
        """Give files the line ends that they have in the project."""
        for path in changed_files(old, new):
            content = self.project.read(path) or b""
            if content.count(b"\r\n") <= 0.9 * content.count(b"\n"):
                continue
            for file in (old / path, new / path):
                content = file.read_bytes() if file.is_file() else b"\0"
                if b"\0" not in content and b"\r\n" not in content:
                    file.write_bytes(content.replace(b"\n", b"\r\n"))

    def forecast(self, old, new):
        """Commit both renderings beside the history, and merge as git will."""
        git, prefix, scratch = self.project.git, self.project.prefix, self.template.scratch
        name = f"Update to {self.template.name(self.wanted)} of the template"
        changed = [
            f"{key}={shown(self.after[key])}"
            for key in self.asked
            if self.before.get(key, self.after[key]) != self.after[key]
        ]
        title = f"{name}, {', '.join(changed)}" if changed else name
        self.base = commit_tree_of(git, old, prefix, scratch, None, "The recorded version of the template")
        self.commit = commit_tree_of(git, new, prefix, scratch, self.base, title)
        self.head = git("rev-parse", "HEAD")
        if self.left_alone:
            folders = scratch / "yours-before", scratch / "yours-after"
            self.aside = [commit_tree_of(git, folder, prefix, scratch, None, "Yours")[:10] for folder in folders]
        ours = git("commit-tree", "HEAD^{tree}", "-p", self.base, "-m", "The project")
        ran = git.run(
            "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, self.commit, options=MERGE
        )
        if ran.returncode > 1:
            raise Refusal(f"git {git('version').split()[-1]} cannot forecast a merge: git 2.38 or newer is needed.")
        self.tree, *conflicts = [part for part in decode(ran.stdout).split("\0") if part]
        self.conflicts = sorted(set(conflicts))

    def refuse_files_in_the_way(self):
        """Refuse to write over files that git does not track, ignored ones included, which git would replace."""
        git = self.project.git
        tracked = git.files("HEAD")
        in_the_way = []
        for path in git.list(
            "diff-tree", "-r", "-z", "--no-renames", "--name-only", "--diff-filter=A", "HEAD", self.tree
        ):
            steps = [*reversed(Path(path).parents)][1:]
            blocked = [step for step in steps if (git.folder / step).is_symlink() or (git.folder / step).is_file()]
            for step in blocked[:1] or ([Path(path)] if os.path.lexists(git.folder / path) else []):
                if step.as_posix() not in tracked:
                    in_the_way.append(step.as_posix())
        if in_the_way:
            raise Refusal(
                f"The update adds {shortened(dict.fromkeys(in_the_way))}, which is here already and not committed: "
                "move it away, or commit it."
            )

    def look_at_migrations(self):
        """Refuse to take migrations away that databases may have, and note those that collide."""
        git = self.project.git
        old, new, ours, merged = (Migrations(git, tree) for tree in (self.base, self.commit, "HEAD", self.tree))
        lost = old.lost(new, ours)
        if lost and not self.options.unapplied:
            commands = [
                f".venv/bin/python manage.py migrate {label} {new.last_before(label, names[0])}"
                for label, names in lost.items()
            ]
            names = shortened(f"{label}.{name}" for label, names in lost.items() for name in names)
            raise Refusal(
                f"The update takes {names} away or makes it another migration: unapply it on every database, which "
                f"deletes what is in its tables, with {' && '.join(commands)}, then say so with UNAPPLIED=1."
            )
        added = {label for label, _ in new.ids.keys() - old.ids.keys()}
        self.colliding = {label: names for label in added if len(names := merged.leaves(label)) > 1}

    def show(self):
        """Print the difference that the update would make; return 1 if there would be conflicts."""
        print(self.project.git("diff", "--no-ext-diff", "--no-textconv", "HEAD", self.tree))
        if self.conflicts:
            print("\nThere would be conflicts in:", *(f"  {path}" for path in self.conflicts), sep="\n")
        return 1 if self.conflicts else 0

    def apply(self):
        """Take the commit over, and say what happened and what to do next. Return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # git would stop halfway
        with self.project.locked():
            conflicts = self.pick()
        try:
            self.say_what_happened(conflicts)
        except Exception as error:
            print(f"The update is done; not all could be said of it: {error}", file=sys.stderr)
            return 1
        return 1 if conflicts or self.colliding or self.apps_left_alone else 0

    def pick(self):
        """Take the commit over, unless somebody did something here since the update began; return what conflicts."""
        git = self.project.git
        self.project.require_clean(self.template.scratch)
        if git("rev-parse", "HEAD") != self.head:
            raise Refusal("HEAD moved while the update was made ready: run it again.")
        # Of files whose line ends alone differ from those of the index, git would say that they are in the way.
        if others := git.bytes("diff-files", "--name-only", "-z", "--ignore-submodules=dirty"):
            only = ("--pathspec-from-file=-", "--pathspec-file-nul")
            git("--literal-pathspecs", "add", "--update", *only, stdin=others)
        picked = git.run("cherry-pick", self.commit, options=PICK)
        ours = git.ask("rev-parse", "--verify", "--quiet", "CHERRY_PICK_HEAD") == self.commit
        conflicts = {entry.split("\t", 1)[1] for entry in git.list("ls-files", "-u", "-z", ":/")} if ours else set()
        if picked.returncode and not conflicts:
            if ours:
                git("cherry-pick", "--abort")
            raise Refusal(f"git could not commit the update: {' '.join(decode(picked.stderr).split())}")
        return sorted(conflicts)

    def say_what_happened(self, conflicts):
        """Print what is different now, and what is left to do."""
        git = self.project.git
        changed = len(git.list("diff-tree", "-r", "-z", "--name-only", self.head, self.tree))
        if conflicts:
            print(f"{changed} files changed; you and the template changed the same thing in:")
            print(*(f"  {path}" for path in conflicts), sep="\n")
        else:
            print(f"{changed} files changed, in commit {git('rev-parse', '--short', 'HEAD')}.")
        if self.left_alone:
            print("Left as you have them, because they are yours; what the template changed in them:")
            print(*(f"  {path}" for path in self.left_alone), f"  shown by: git diff {' '.join(self.aside)}", sep="\n")
        print("\nNext:")
        steps = []
        if conflicts:
            steps.append("Edit these files, `git add` each, then: git cherry-pick --continue")
            steps.append("To go back to where you were: git cherry-pick --abort")
        for label, names in self.colliding.items():
            join = f".venv/bin/python manage.py makemigrations --merge {label}"
            steps.append(f"{' and '.join(names)} both follow the same migration; this joins them: {join}")
        steps += [
            f"{name} is yours and was left alone as a whole; take over what it needs: git diff {' '.join(self.aside)}"
            for name in self.apps_left_alone
        ]
        steps += [*self.notes, "make setup && make test"]
        if not conflicts:
            steps.append("To go back to where you were: git reset --keep HEAD^")
        print(*(f"  {step}" for step in steps), sep="\n")


def answers_in(texts):
    """Return what SET="name=answer …" says, quoted as in a shell, by name."""
    try:
        pairs = [pair for text in texts for pair in shlex.split(text)]
    except ValueError as error:
        raise Refusal(f"SET cannot be read: {error}.") from None
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise Refusal(f"{wrong[0]!r} is no answer; expected name=answer.")
    return dict(pair.split("=", 1) for pair in pairs)


def skipped(project):
    """Return the patterns of the files that the project keeps out of updates, each as its parts."""
    try:
        content = tomllib.loads(decode(project.read("pyproject.toml") or b""))
    except ValueError as error:
        raise Refusal(f"pyproject.toml cannot be read: {error}") from None
    found = []
    for where, skip in (
        (RECORD, project.record.content.get("skip") or []),
        ("pyproject.toml", content.get("tool", {}).get("cruft", {}).get("skip", [])),
    ):
        for pattern in skip if isinstance(skip, list) else [None]:
            parts = [part for part in str(pattern or "").split("/") if part not in ("", ".")]
            if not isinstance(pattern, str) or not parts or ".." in parts:
                expected = 'a list of paths in the project, such as ["docs", "deploy/*.conf"]'
                raise Refusal(f"{where} says skip = {json.dumps(skip, default=str)}; expected {expected}.")
            found.append(parts)
    return found


def matches(path, pattern):
    """Say whether the parts of a pattern name a file or a folder above it; ** stands for any number of folders."""
    if pattern[:1] == ["**"]:
        return any(matches(path[number:], pattern[1:]) for number in range(len(path)))
    return not pattern or (bool(path) and fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:]))


def changed_files(old, new):
    """Return the paths of the files that are not the same in two folders."""
    paths = {
        file.relative_to(folder).as_posix() for folder in (old, new) for file in folder.rglob("*") if file.is_file()
    }
    return sorted(path for path in paths if read(old / path) != read(new / path))


def read(file):
    """Return the text of a file, or None where there is none."""
    return decode(file.read_bytes()) if file.is_file() else None


def write(file, text):
    """Write a text with the line ends that it has."""
    file.write_bytes(text.encode("utf-8", "surrogateescape"))


def unified(content):
    """Return bytes with the line ends of Unix."""
    return None if content is None else content.replace(b"\r\n", b"\n")


def shown(answer):
    """Return an answer as one would type it."""
    return str(answer).lower() if isinstance(answer, bool) else str(answer)


def shortened(names):
    """Return a few names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main()
    except (Refusal, GitError) as error:
        sys.stdout.flush()
        print(f"Nothing was changed: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("\nNothing was changed: interrupted.", file=sys.stderr)
        status = 130
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        sys.stdout.flush()
        print(f"Nothing was changed: {type(error).__name__} in {where}: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)
