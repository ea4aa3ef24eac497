"""A git repository, asked and changed in ways that nobody's configuration changes."""

import os
import subprocess
from pathlib import Path

# Set in hooks and aliases of git, where they name another repository than that of the current folder.
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")

FIXED = ("core.quotePath=false", "core.fsmonitor=false", f"core.hooksPath={os.devnull}", "color.ui=false")

# How the difference between two versions is merged into the project.
MERGE = ("merge.renames=true", "merge.directoryRenames=conflict", "merge.renameLimit=10000")

# What rerere stages for itself would look as if nothing had been in conflict.
PICK = (*MERGE, "rerere.autoUpdate=false")


class Refusal(Exception):  # noqa: N818  it is no error
    """One sentence on why nothing was changed."""


class GitError(Exception):
    """What git said when it failed."""


def decode(data):
    """Return what git printed as text; paths may hold any bytes."""
    return data.decode("utf-8", "surrogateescape")


class Git:
    """A repository; call it with a command of git to get what that prints."""

    def __init__(self, folder, options=(), **environment):
        self.folder = Path(folder)
        self.options = options
        self.environment = environment

    def run(self, *arguments, stdin=b"", options=(), **environment):
        """Run a command of git; return the CompletedProcess."""
        command = ["git", "--no-pager"]
        for option in (*FIXED, *self.options, *options):
            command += ["-c", option]
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return subprocess.run(
            [*command, *(str(argument) for argument in arguments)],
            cwd=self.folder,
            input=stdin,
            env=inherited | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | self.environment | environment,
            capture_output=True,
        )

    def bytes(self, *arguments, **options):
        """Return what a command prints."""
        ran = self.run(*arguments, **options)
        if ran.returncode:
            raise GitError(decode(ran.stderr).strip() or f"git {arguments[0]} ended with {ran.returncode}")
        return ran.stdout

    def __call__(self, *arguments, **options):
        """Return what a command prints, as text."""
        return decode(self.bytes(*arguments, **options)).rstrip("\n")

    def list(self, *arguments, **options):
        """Return what a command prints with NUL after each item."""
        return [item for item in decode(self.bytes(*arguments, **options)).split("\0") if item]

    def ask(self, *arguments):
        """Return what a command prints, or None if it fails."""
        ran = self.run(*arguments)
        return None if ran.returncode else decode(ran.stdout).rstrip("\n")

    def files(self, tree):
        """Return the ids of a tree's files, by path."""
        entries = (entry.split("\t", 1) for entry in self.list("ls-tree", "-r", "-z", tree))
        return {path: about.split(" ")[2] for about, path in entries}


def commit_tree_of(project, folder, prefix, scratch, parent, message):
    """Commit a folder, byte for byte, as all files of a project; return the commit, which is on no branch."""
    store = scratch / "store"
    where = {"GIT_DIR": str(store), "GIT_INDEX_FILE": str(scratch / "index"), "GIT_CONFIG_NOSYSTEM": "1"}
    where |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
    objects = project.folder / project("rev-parse", "--git-path", "objects")
    git = Git(folder, **where, GIT_WORK_TREE=str(folder), GIT_OBJECT_DIRECTORY=str(objects))
    if not store.exists():
        # Older versions of git know one format only, and do not know the option.
        form = project.ask("rev-parse", "--show-object-format")
        Git(scratch)("init", "--quiet", "--bare", *([f"--object-format={form}"] if form else []), store)
        (store / "info").mkdir(exist_ok=True)
        (store / "info" / "attributes").write_text("* -text -filter -ident -working-tree-encoding\n")
    git("read-tree", "--empty")
    git("add", "-A", "-f", ".", options=(f"core.excludesFile={os.devnull}", "core.autocrlf=false"))
    tree = git("write-tree")
    if prefix:
        git("read-tree", "--empty")
        git("read-tree", f"--prefix={prefix}", tree)
        tree = git("write-tree")
    return project("commit-tree", tree, *(["-p", parent] if parent else []), "-m", message)
