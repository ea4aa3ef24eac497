"""The map in docs/architecture.md is that of the code: files, names, figures, order, and the direction of imports."""

import ast
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from cookiecutter.main import cookiecutter
from test_options import CHOICES, OFF, ON

MAPS = {"nothing": OFF, "everything": ON} | {
    f"{name}={value}": OFF | {name: value} for name, values in CHOICES.items() for value in values[1:]
}

# Imports the modules of a layer while those above it cannot be imported: names of both in two JSON lists.
ALONE = """
import importlib, json, sys

modules, above = map(json.loads, sys.argv[1:])

class Above:
    def find_spec(self, name, path=None, target=None):
        if any(name == module or name.startswith(f"{module}.") for module in above):
            raise ImportError(f"{name} is above")

sys.meta_path.insert(0, Above())

from django.conf import settings
from my_project.settings import base

apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages", "django.contrib.sessions"]
if "my_project.scaling.tasks" not in above:
    apps += ["django.contrib.admin", "my_project.scaling.tasks"]
values = {name: value for name, value in vars(base).items() if name.isupper()}
values |= {"INSTALLED_APPS": apps, "AUTH_USER_MODEL": "auth.User", "DATABASE_ROUTERS": []}
values |= {"SECRET_KEY": "none"}
if "my_project.scaling.db" not in above:
    values["DATABASES"] = {"default": {"ENGINE": "my_project.scaling.db.postgresql"}}
settings.configure(**values)

import django

django.setup()
for module in modules:
    importlib.import_module(module)
"""


class Map:
    """A rendered project and what its map says."""

    def __init__(self, path):
        self.path = path
        self.scaling = path / "my_project" / "scaling"
        self.text = (path / "docs" / "architecture.md").read_text()

    def section(self, title):
        return self.text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]

    def rows(self, title):
        """Return the rows of the tables in a section, each a list of its cells."""
        rows = [line.strip("| ").split(" | ") for line in self.section(title).splitlines() if line.startswith("| ")]
        return [[cell.strip("| ") for cell in row] for row in rows[1:]]

    def layers(self):
        """Return the lines of the drawing from the bottom, each a list of names in scaling/."""
        drawing = self.section("The rooms of `scaling/`").partition("```text\n")[2].partition("```")[0]
        return [re.findall(r"\w+/|\w+\.py", line) for line in reversed(drawing.splitlines())]

    def modules(self):
        """Yield each module of scaling/ as its dotted name, its file, and its entry in scaling/."""
        for file in self.scaling.rglob("*.py"):
            inside = file.relative_to(self.scaling)
            parts = file.relative_to(self.path).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, file, inside.parts[0] + ("/" if len(inside.parts) > 1 else "")


@pytest.fixture(scope="module", params=MAPS)
def map_(request, tmp_path_factory):
    answers = {"no_input": True, "extra_context": MAPS[request.param], "output_dir": tmp_path_factory.mktemp("map")}
    return Map(Path(cookiecutter(str(ROOT), **answers)))


def names(file):
    """Return what a module defines."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def imported(name, file):
    """Yield the absolute names that a module imports, at its top or in its functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def test_questions_lead_to_what_is_there(map_):
    rows = map_.rows("Where is it?")

    assert len(rows) >= 10
    for _, file, symbols in rows:
        path = map_.path / file.strip("`")
        defined = names(path) if path.suffix == ".py" else set(re.findall(r"\w+", path.read_text()))
        assert set(re.findall(r"`(\w+)`", symbols)) <= defined, file


def test_files_exist(map_):
    files = set(re.findall(r"`((?:my_project|tests|deploy|docs)/[\w./]+)`", map_.text))

    assert {file for file in files if not (map_.path / file).exists()} == set()


def test_timeouts_are_those_of_the_code(map_):
    code = {}
    exec((map_.scaling / "timeouts.py").read_text(), code)

    stated = re.findall(r"`([A-Z_]+)` \(([\d.]+) s\)", map_.text)
    assert len(stated) > 5
    for name, seconds in stated:
        assert float(seconds) == code[name], name


def test_middlewares_are_in_their_order(map_):
    base = ast.parse((map_.path / "my_project" / "settings" / "base.py").read_text())
    assigned = {node.targets[0].id: node.value for node in base.body if isinstance(node, ast.Assign)}

    own = [entry.rpartition(".")[2] for entry in ast.literal_eval(assigned["MIDDLEWARE"]) if ".scaling." in entry]
    assert re.findall(r"^\| … `(\w+)`", map_.text, re.MULTILINE) == own


def test_every_room_is_drawn(map_):
    drawn = [entry for layer in map_.layers() for entry in layer]

    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {entry for _, _, entry in map_.modules()} - {"__init__.py"}


def test_imports_go_down(map_):
    height = {entry: number for number, layer in enumerate(map_.layers()) for entry in layer}
    entries = {name: entry for name, _, entry in map_.modules()}

    wrong = []
    for name, file, entry in map_.modules():
        for target in imported(name, file):
            there = entries.get(target) or entries.get(target.rpartition(".")[0])
            if there and "__init__.py" not in (there, entry) and there != entry and height[there] >= height[entry]:
                wrong.append(f"{name} imports {target}")
            if target.startswith("my_project.") and not target.startswith("my_project.scaling"):
                wrong.append(f"{name} imports {target}, which is not in scaling/")
    assert wrong == []


def test_every_file_has_an_owner(map_):
    owners = {}
    for whose, cell in map_.rows("Whose file is whose"):
        for file in re.findall(r"`([^`]+)`", cell):
            assert owners.setdefault(file, whose) == whose
    files = [str(file.relative_to(map_.path)) for file in map_.path.rglob("*") if file.is_file()]

    for file in files:
        prefixes = [path for path in owners if file == path or (path.endswith("/") and file.startswith(path))]
        assert prefixes, f"{file} has no owner"
        longest = max(map(len, prefixes))
        assert len([path for path in prefixes if len(path) == longest]) == 1, file


@pytest.mark.parametrize("number", range(7))
def test_a_layer_works_without_those_above(set_up, tmp_path, number):
    project = set_up(**ON)
    plan = Map(project.path)
    below, above = plan.layers()[: number + 1], plan.layers()[number + 1 :]
    modules = [name for name, _, entry in plan.modules() if any(entry in layer for layer in below)]
    modules = [name for name in modules if "migrations" not in name]
    blocked = [f"my_project.scaling.{entry.removesuffix('.py').strip('/')}" for layer in above for entry in layer]

    project.run(project.python, "-c", ALONE, json.dumps(modules), json.dumps(blocked))


def test_map_of_the_template():
    text = (ROOT / "docs" / "architecture.md").read_text()
    files = [file for folder in ("tests", "benchmarks", "hooks", "scripts") for file in (ROOT / folder).glob("*.py")]

    assert [file.name for file in files if file.name not in text] == []
    tested = {file.name for file in files}
    assert [name for name in re.findall(r"`(?:\w+/)*(test_\w+\.py)`", text) if name not in tested] == []
