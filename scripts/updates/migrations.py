"""What an update does to migrations, of which git sees only files."""

import ast
import re
from collections import defaultdict
from pathlib import PurePosixPath

PATH = re.compile(r"(?:(?P<app>.*)/)?migrations/(?P<name>\d\w*)\.py")


class Migrations:
    """The migrations of a tree, by the label of the app and the name."""

    def __init__(self, git, tree):
        self.git = git
        files = git.files(tree)
        self.ids = {}
        for path, number in files.items():
            if match := PATH.fullmatch(path):
                self.ids[self.label(files, match["app"] or ""), match["name"]] = number

    def label(self, files, app):
        """Return the label of the app in a folder: as its apps.py says, or the folder's name."""
        apps = files.get(f"{app}/apps.py")
        said = (
            re.search(r"^\s+label = [\"'](\w+)[\"']", self.git("cat-file", "blob", apps), re.MULTILINE)
            if apps
            else None
        )
        return said[1] if said else PurePosixPath(app).name

    def syntax(self, key):
        """Return the syntax tree of a migration; of one that Python cannot read, an empty one."""
        try:
            return ast.parse(self.git.bytes("cat-file", "blob", self.ids[key]))
        except (SyntaxError, ValueError):
            return ast.parse("")

    def lost(self, new, present):
        """Return those that another tree does not have, or has with other contents, and that are present, by app."""
        lost = defaultdict(list)
        for key, number in sorted(self.ids.items()):
            if key not in present.ids or new.ids.get(key) == number:
                continue
            if key not in new.ids or ast.dump(new.syntax(key)) != ast.dump(self.syntax(key)):
                lost[key[0]].append(key[1])
        return lost

    def last_before(self, label, name):
        """Return the last migration of an app before one, or zero, which is none."""
        return max((other for app, other in self.ids if app == label and other < name), default="zero")

    def leaves(self, label):
        """Return the migrations of an app that no other one of it builds upon."""
        names = {name for app, name in self.ids if app == label}
        built_upon = set()
        for name in names:
            for node in ast.walk(self.syntax((label, name))):
                if isinstance(node, ast.Tuple) and len(node.elts) == 2:
                    app, other = (getattr(element, "value", None) for element in node.elts)
                    built_upon |= {other} if app == label else set()
        return sorted(names - built_upon)
