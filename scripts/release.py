"""Tag the version that pyproject.toml names, if the CHANGELOG tells of it; an argument names an older commit to tag."""

import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)


def git(*arguments):
    """Return what git prints, or end with what it says."""
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else refuse(ran.stderr.strip())


def refuse(why):
    sys.exit(f"Nothing was tagged: {why}")


def sections(changelog):
    """Return the entries of the changelog, by heading."""
    _, *parts = HEADING.split(changelog)
    return {
        heading: re.findall(r"^- ", text, re.MULTILINE) for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def main():
    commit = git("rev-parse", "--verify", f"{(sys.argv[1:] or ['HEAD'])[0]}^{{commit}}")
    is_head = commit == git("rev-parse", "HEAD")
    version = tomllib.loads(git("show", f"{commit}:pyproject.toml"))["project"]["version"]
    tags = git("tag", "--list", "v*").split()
    if f"v{version}" in tags:
        refuse(f"there is a tag v{version} already; which version comes next stands in pyproject.toml.")
    if is_head and git("status", "--porcelain"):
        refuse("there are changes that are not committed.")

    entries = sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if is_head and entries.get("Unreleased"):
        refuse(f'the CHANGELOG has entries under "Unreleased"; their heading should be "{version} ({date.today()})".')
    heading = next((heading for heading in entries if heading.partition(" ")[0] == version), None)
    if not heading or not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", heading) or not entries[heading]:
        refuse(f'the CHANGELOG has no entries under a heading such as "{version} ({date.today()})".')
    newest = max(
        (tag for tag in tags if re.fullmatch(r"v\d[\d.]*", tag)), key=lambda tag: Version(tag[1:]), default=None
    )
    if is_head and newest and Version(version) < Version(newest[1:]):
        refuse(f"{version} is older than {newest}.")

    git("tag", "--annotate", f"v{version}", "--message", f"v{version}", commit)
    print(f"Tagged {commit[:10]} as v{version}. To publish it: git push origin v{version}")


if __name__ == "__main__":
    main()
