"""The template: its versions, what each asks, and what it renders."""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from cookiecutter.generate import generate_context
from cookiecutter.prompt import YesNoPrompt, prompt_for_config
from git import Git, Refusal
from packaging.version import InvalidVersion, Version

RECORD = ".cruft.json"


def parse_version(tag):
    """Return the version that a tag such as v1.2.0 names, or None."""
    try:
        return Version(tag) if re.match(r"v?\d", tag) else None
    except InvalidVersion:
        return None


def literally(answer):
    """Return an answer such that cookiecutter, which renders answers, gives it back."""
    if isinstance(answer, str) and re.search(r"{[{%#]|\n$", answer):
        return f"{{{{ {json.dumps(answer, ensure_ascii=False)} }}}}"
    return answer


class Record:
    """The file that says which version of which template a project was rendered from, with which answers."""

    def __init__(self, text):
        try:
            self.content = json.loads(text)
            self.template, self.commit = self.content["template"], self.content["commit"]
            self.context = self.content["context"]["cookiecutter"]
            self.context.items()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise Refusal(f"{RECORD} is damaged ({why}); take it from git's history, or see docs/updates.md.") from None
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", str(self.commit)):
            raise Refusal(f"{RECORD} names {self.commit!r} as the commit; expected 40 hexadecimal digits.")
        self.answers = {name: value for name, value in self.context.items() if not name.startswith("_")}
        self.checkout = self.content.get("checkout")
        self.directory = self.content.get("directory") or ""
        if not isinstance(self.directory, str) or {"/", ".."} & {*PurePosixPath(self.directory).parts}:
            raise Refusal(f"{RECORD} says directory {self.directory!r}; expected a folder in the template, or null.")

    def moved(self, commit, checkout, answers):
        """Return the text of the record after an update."""
        rest = {name: value for name, value in self.content.items() if name != "uncommitted"}
        changed = {"commit": commit, "checkout": checkout, "context": {"cookiecutter": answers}}
        return json.dumps(rest | changed, ensure_ascii=False, indent=2) + "\n"


class Template:
    """A clone of the template, and a scratch folder to render in."""

    def __init__(self, clone, directory, scratch):
        self.git = Git(clone)
        self.directory = directory
        self.scratch = scratch
        tags = [tag for tag in self.git("tag", "--list").splitlines() if parse_version(tag)]
        self.releases = sorted(tags, key=parse_version)

    def commit(self, name):
        """Return the commit of a tag, a branch or the beginning of a commit's id, or None."""
        for spelling in (f"refs/tags/{name}", f"refs/tags/v{name}", f"refs/remotes/origin/{name}", name):
            found = self.git.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{spelling}^{{commit}}")
            if found:
                return found
        return None

    def recorded(self, record):
        """Return the recorded commit, which an address need not hand out with its branches, or refuse."""
        exists = ("cat-file", "-e", f"{record.commit}^{{commit}}")
        if self.git.ask(*exists) is None:
            self.git.ask("fetch", "--quiet", "origin", record.commit)
        if self.git.ask(*exists) is None:
            raise Refusal(f"{RECORD} says commit {record.commit[:10]}, which {record.template} does not have.")
        return record.commit

    def wanted(self, to, record):
        """Return the commit of the version that is asked for: without a name the newest release, or commit."""
        if to:
            return self.commit(to) or self.refuse_version(to)
        if record.checkout and record.checkout not in self.releases:
            branch = self.git.ask("rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{record.checkout}")
            if branch:
                return branch
        final = [tag for tag in self.releases if not parse_version(tag).is_prerelease]
        newest = self.commit(f"refs/tags/{final[-1]}") if final else self.git("rev-parse", "HEAD")
        return record.commit if self.has(newest, record.commit) else newest

    def refuse_version(self, name):
        """Say which versions there are."""
        branches = self.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes/origin").splitlines()
        there = [*self.releases[-10:], *(branch for branch in branches if branch != "HEAD")]
        raise Refusal(f"{name!r} is no version of the template; there are {', '.join(there)}, and commits.")

    def has(self, older, newer):
        """Say whether one commit is the other or among those that it builds upon."""
        return self.git.run("merge-base", "--is-ancestor", older, newer).returncode == 0

    def name(self, commit):
        """Return the tag of a commit, or how far it is from one."""
        described = self.git.ask("describe", "--tags", "--match", "v[0-9]*", "--abbrev=10", commit)
        return described or f"{commit[:10]} ({self.git('show', '--no-patch', '--format=%cs', commit)})"

    def entries(self, old, new):
        """Return what the CHANGELOG of one commit says that the other's does not, with the headings of the versions."""
        path = f"{self.directory}/CHANGELOG.md" if self.directory else "CHANGELOG.md"
        known, text = (self.git.ask("show", f"{commit}:{path}") or "" for commit in (old, new))

        def items(text):
            return re.findall(r"^(?:## .*|[-*] .*(?:\n[ \t]+\S.*)*)$", text, re.MULTILINE)

        before, shown, heading = set(items(known)), [], None
        for item in items(text):
            if item.startswith("## "):
                heading = item.removeprefix("## ")
            elif item not in before:
                shown += [heading] if heading else []
                shown.append(item)
                heading = None
        return shown

    def export(self, commit):
        """Return a folder with the files of a version, as they are in git."""
        folder = self.scratch / commit
        if not folder.exists():
            index = {"GIT_INDEX_FILE": str(self.scratch / f"{commit}.index")}
            plain = ("core.autocrlf=false", "core.eol=lf")
            self.git("read-tree", commit, **index)
            self.git("checkout-index", "--all", f"--prefix={folder}{os.sep}", options=plain, **index)
        root = folder / self.directory
        if not (root / "cookiecutter.json").is_file():
            raise Refusal(f"{self.name(commit)} of the template has no cookiecutter.json.")
        return root

    def questions(self, commit):
        """Return what a version asks, by name: True or False, a list of choices, or a text."""
        return {name: value for name, value in self.content(commit).items() if not name.startswith("_")}

    def content(self, commit):
        """Return what cookiecutter.json of a version holds."""
        return json.loads((self.export(commit) / "cookiecutter.json").read_text(encoding="utf-8"))

    def written_once(self, commit):
        """Return the files and folders of a version that are the user's once they are edited."""
        return self.content(commit).get("_written_once", [])

    def answers(self, commit, given):
        """Return the answers to all that a version asks, the defaults where nothing is given; refuse invalid ones."""
        asked = self.questions(commit)
        for name, value in given.items():
            default = asked.get(name)
            if isinstance(default, list) and value not in default:
                raise Refusal(f"{name}={value} is not among the choices {', '.join(default)}.")
            if isinstance(default, bool) and str(value).lower() not in YesNoPrompt.yes_choices + YesNoPrompt.no_choices:
                raise Refusal(f"{name}={value} is neither true nor false.")
        known = {name: literally(value) for name, value in given.items() if name in asked}
        file = self.export(commit) / "cookiecutter.json"
        answered = prompt_for_config(generate_context(file, extra_context=known), no_input=True)
        return {name: answered[name] for name in sorted(asked)}

    def render(self, commit, answers):
        """Return a folder with the project that a version renders, with nobody's configuration and nothing printed."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        config = self.scratch / "cookiecutter.yaml"
        config.write_text(json.dumps({key: str(self.scratch / key) for key in ("replay_dir", "cookiecutters_dir")}))
        command = [sys.executable, "-I", "-m", "cookiecutter", "--no-input", "--config-file", config]
        given = [f"{name}={literally(value)}" for name, value in answers.items()]
        ran = subprocess.run(
            [*command, "--output-dir", folder, self.export(commit), *given],
            env=os.environ | {"PYTHONUTF8": "1"} | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.scratch)),
            cwd=self.scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if ran.returncode:
            said = ran.stdout.decode("utf-8", "replace").splitlines()
            reasons = itertools.takewhile(lambda line: line.startswith("  "), said[1:])
            raise Refusal(" ".join(line.strip() for line in reasons) or said[-1])
        return next(folder.iterdir())
