"""Locks and lists of dependencies, merged package by package, three ways: as text, neighbours would conflict."""

import re

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCKS = ("requirements.txt", "requirements-dev.txt")

# A list of pyproject.toml with one dependency, or one comment, on each line.
LIST = re.compile(r"^(?P<name>[\w-]+) = \[\n(?P<items>(?:[ \t]+[\"'#].*\n)*)\]", re.MULTILINE)


def packages(lock):
    """Return what stands before the packages of a lock, and the packages with their hashes, by name."""
    header, *entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    found = {}
    for entry in entries:
        name = canonicalize_name(re.match(r"[\w.-]+", entry)[0])
        found[name] = found.get(name, "") + entry.rstrip("\n") + "\n"
    return header, found


def highest(entry):
    """Return the highest version in a package's lines of a lock."""
    versions = []
    for text in re.findall(r"==([^\s;\\]+)", entry):
        try:
            versions.append(Version(text))
        except InvalidVersion:
            continue
    return max(versions, default=Version("0"))


def merge_locks(base, ours, theirs):
    """Return the text of a lock with the changes of both; where both changed a package, with the higher version."""
    headers, all_packages = zip(*(packages(text) for text in (base, ours, theirs)), strict=True)
    merged = {}
    for name in sorted(set().union(*all_packages)):
        before, here, there = (found.get(name) for found in all_packages)
        if here == before:
            chosen = there
        elif there == before or there is None:
            chosen = here
        else:
            chosen = max(there, here or "", key=highest)
        if chosen is not None:
            merged[name] = chosen
    header = headers[2] if headers[1] == headers[0] else headers[1]
    return header + "".join(merged.values())


def lists(pyproject):
    """Return the lists of dependencies in a pyproject.toml, by name: each the lines of its packages, by name."""
    found = {}
    for match in LIST.finditer(pyproject):
        items, comments = {}, ""
        for line in match["items"].splitlines(keepends=True):
            try:
                text = re.match(r"\s*[\"'](.*?)[\"'],?\s*(#.*)?$", line)
                name = canonicalize_name(Requirement(text[1]).name) if text else None
            except InvalidRequirement:
                break
            comments += line
            if name:
                if name in items:
                    break
                items[name], comments = comments, ""
        else:
            if not comments:
                found[match["name"]] = items
    return found


def merge_lists(base, ours, theirs):
    """Return two texts of pyproject.toml to merge with ours in place of base and theirs.

    In them, the lists of dependencies differ from ours only where theirs changed a package, so that neighbours do not
    conflict; where both changed the same package, they still do.
    """
    three = [lists(text) for text in (base, ours, theirs)]
    for name in set.intersection(*(set(found) for found in three)):
        before, here, there = (found[name] for found in three)
        if here == before or there == before:
            continue
        old, new = dict(here), dict(here)
        for package in sorted({*before, *there}):
            if before.get(package) == there.get(package) or here.get(package) == there.get(package):
                continue
            old = put(old, package, before.get(package), before)
            new = put(new, package, there.get(package), there)
        base, theirs = (replace(text, name, items) for text, items in ((base, old), (theirs, new)))
    return base, theirs


def put(items, package, lines, order):
    """Return items with other lines for a package, or none; a new one follows the package that it follows in order."""
    if lines is None:
        return {name: text for name, text in items.items() if name != package}
    if package in items:
        return items | {package: lines}
    names = list(order)
    earlier = names[: names.index(package)]
    place = max((position for position, name in enumerate(items, 1) if name in earlier), default=0)
    pairs = list(items.items())
    # Packages of the project's own that sort before it stay before it.
    while place < len(pairs) and pairs[place][0] not in order and pairs[place][0] < package:
        place += 1
    return dict([*pairs[:place], (package, lines), *pairs[place:]])


def replace(pyproject, name, items):
    """Return a pyproject.toml with other items in a list."""

    def write(match):
        if match["name"] != name:
            return match[0]
        return f"{name} = [\n{''.join(line if line.endswith('\n') else line + '\n' for line in items.values())}]"

    return LIST.sub(write, pyproject)
