"""Leave out the folders of options that were not chosen, write the record that updates read, say what to do next."""

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

ANSWERS = json.loads(r"""{{ cookiecutter|tojson }}""")

# In an archive that git made, the commit; anywhere else these very characters.
ARCHIVED = "$Format:%H$"

NOTES = {
    "uncommitted": "The template has uncommitted changes: `make update` will take what they changed for yours.",
    "unknown": "Nothing says which commit of the template this is. `make update` has to know: see docs/updates.md.",
}


def git(folder, *arguments):
    """Return what git says in a folder, or None if it fails."""
    foreign = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        said = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.decode("utf-8").rstrip("\n")


def template_folder():
    """Return where the template was read from, which may be given relative to where cookiecutter was started."""
    output = Path(ANSWERS["_output_dir"])
    for start in (os.environ.get("PWD", output), output, *output.parents):
        folder = Path(start, ANSWERS["_repo_dir"])
        if (folder / "cookiecutter.json").is_file():
            return folder.resolve()
    return Path(ANSWERS["_repo_dir"])


def without_credentials(address):
    """Return an address of a git repository without what only the one who rendered may know."""
    parts = urlsplit(address)
    if "://" not in address or not parts.hostname:
        return address
    user, host = parts.netloc.rpartition("@")[::2]
    if parts.scheme.endswith("ssh") and user:
        host = f"{user.partition(':')[0]}@{host}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def record():
    """Return which version of which template was rendered with which answers, in cruft's format."""
    folder = template_folder()
    commit = None if ARCHIVED.startswith("$") else ARCHIVED
    address, directory, changes = ANSWERS["_template_address"], None, ""
    is_tracked = git(folder, "ls-files", "--error-unmatch", "cookiecutter.json")
    if is_tracked and (said := git(folder, "rev-parse", "HEAD", "--show-toplevel", "--show-prefix")):
        commit, top, *inside = said.splitlines()
        directory = "".join(inside).strip("/") or None
        rendered = ("cookiecutter.json", "hooks", "*cookiecutter.project_slug*")
        changes = git(folder, "status", "--porcelain", "--", *rendered)
        if ANSWERS["_repo_dir"].startswith(ANSWERS["_template"]):
            address = top
        elif origin := git(folder, "config", "remote.origin.url"):
            address = without_credentials(origin)
    return {
        "template": address,
        "commit": commit,
        "checkout": ANSWERS["_checkout"],
        "context": {"cookiecutter": {name: value for name, value in ANSWERS.items() if not name.startswith("_")}},
        "directory": directory,
    } | ({"uncommitted": True} if changes else {})


for top in map(Path, ("{{ cookiecutter.project_slug }}", "deploy", "tests", ".github")):
    for folder in sorted([top, *top.rglob("*")], reverse=True):  # the inner ones first
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

notes = []
if "_repo_dir" in ANSWERS:  # cruft, which does not give it, writes a record of its own
    written = record()
    Path(".cruft.json").write_bytes((json.dumps(written, ensure_ascii=False, indent=2) + "\n").encode())
    notes += [NOTES["uncommitted"]] if "uncommitted" in written else []
    notes += [] if written["commit"] else [NOTES["unknown"]]

print(
    """
Next:

    cd {{ cookiecutter.project_slug }}
    make dev      # sets up and serves http://127.0.0.1:8000
    make test
"""
)
for note in notes:
    print(note)
