"""Make an app in the style of this project: `make app NAME=pins`."""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from keyword import iskeyword
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.management import CommandError
from django.core.management.commands import startapp
from django.urls import Resolver404, resolve

PACKAGE = Path(__file__).parents[3]
TEMPLATE = settings.BASE_DIR / "app_template"
SETTINGS, URLS = PACKAGE / "settings" / "base.py", PACKAGE / "urls.py"


class Command(startapp.Command):
    help = "Makes an app in the style of this project, from the templates in app_template/, and adds it to the site."
    missing_args_message = "Name the app: make app NAME=pins"
    rewrite_template_suffixes = ((".py-tpl", ".py"), (".html-tpl", ".html"))

    def add_arguments(self, parser):
        parser.add_argument("name", help="such as pins, which is also its address")
        parser.add_argument("--model", help="the name of its model (default: Pin for pins)")

    def validate_name(self, name, name_or_dir="name"):
        """Leave it to refuse(): the app is a module of the package, and takes the name of no other one."""

    def handle(self, name, model, **options):
        model = model or "".join(word.capitalize() for word in singular(name).split("_"))
        places = {
            "app": PACKAGE / name,
            "templates": PACKAGE / "templates" / name,
            "tests": settings.BASE_DIR / "tests" / f"test_{name}.py",
        }
        refuse(name, model, places.values())
        context = {
            "package": PACKAGE.name,
            "model": model,
            "row": re.sub("(?<!^)(?=[A-Z])", "_", model).lower(),
            "title": name.replace("_", " ").capitalize(),
        }
        with tempfile.TemporaryDirectory() as folder, ExitStack() as undo:
            options = {"template": str(TEMPLATE), "extensions": ["py", "html"], "files": [], "verbosity": 0}
            super().handle(name=name, directory=folder, **options, **context)
            for kind, place in places.items():
                undo.callback(remove, place)
                made = Path(folder, kind)
                shutil.move(made / place.name if place.suffix else made, place)
            missing = self.add_to_site(name, undo)
            if not missing:
                self.make_migration(name)
            tidy(places["app"], places["tests"])
            undo.pop_all()
        self.stdout.write(f"Made {', '.join(str(place.relative_to(settings.BASE_DIR)) for place in places.values())}.")
        for line in missing:
            self.stdout.write(f"Not done, as the file is not as it was: add {line}")
        first = "Then" if missing else "Give it the fields that it needs, in models.py, and then"
        self.stdout.write(f"{first}: .venv/bin/python manage.py makemigrations {name}")

    def add_to_site(self, name, undo):
        """Add the app to the settings and the addresses; return what has to be added by hand."""
        lines = [
            (SETTINGS, "INSTALLED_APPS", f'"{PACKAGE.name}.{name}"', False),
            (URLS, "urlpatterns", f'path("{name}/", include("{PACKAGE.name}.{name}.urls"))', True),
        ]
        try:
            texts = {file: added(file, *line) for file, *line in lines}
        except (LookupError, SyntaxError):
            return [f"{line[1]}, to {line[0]} of {file.relative_to(settings.BASE_DIR)}" for file, *line in lines]
        for file, text in texts.items():
            undo.callback(file.write_text, file.read_text())
            file.write_text(text)
        return []

    def make_migration(self, name):
        """In a process of its own, which reads the settings anew."""
        command = [sys.executable, "manage.py", "makemigrations", name, "--verbosity=0"]
        if subprocess.run(command, cwd=settings.BASE_DIR, check=False).returncode:
            raise CommandError("Its migration could not be made, for the reason above; nothing has been changed.")


def singular(name):
    """Return the name of one row of what a plural names, or the name itself."""
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def refuse(name, model, places):
    """Raise a CommandError for an app that cannot be made."""
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or iskeyword(name):
        raise CommandError(
            f"{name!r} cannot be the name of an app, which has small letters, digits and _, 40 at most, begins with a"
            " letter, and is no keyword of Python. An example: make app NAME=blog_posts"
        )
    if not model.isidentifier() or iskeyword(model) or not model[0].isupper():
        raise CommandError(f"{model!r} cannot be the name of a model: name it as in MODEL=Pin.")
    labels = {config.label: config.name for config in apps.get_app_configs()}
    if name in labels:
        raise CommandError(f"{name!r} is taken by the app {labels[name]}: apps need names of their own.")
    for place in [*places, PACKAGE / f"{name}.py"]:
        if place.exists():
            raise CommandError(f"{name!r} is taken: {place.relative_to(settings.BASE_DIR)} is there already.")
    if f"/{name}/" in (settings.STATIC_URL, settings.MEDIA_URL) or resolves(f"/{name}/"):
        raise CommandError(f"{name!r} is taken: /{name}/ is an address of the site already.")


def resolves(path):
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def tidy(*places):
    """Break lines and order imports as `make lint` would: both depend on the names."""
    for command in (["check", "--select=I", "--fix-only"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", *places], cwd=settings.BASE_DIR, check=False)


def remove(place):
    shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)


def added(file, name, element, include=False):
    """Return a file's text with one element more at the end of its list of a name, or a LookupError."""
    before = file.read_text()
    after = re.sub(rf"^({name} = \[\n(?: .*\n|\n)+)\]$", rf"\1    {element},\n]", before, flags=re.MULTILINE)
    if [*elements(before, name), ast.dump(ast.parse(element).body[0].value)] != elements(after, name):
        raise LookupError(name)
    if include and not re.search(r"^from django\.urls import (.+, )?include\b", after, re.MULTILINE):
        after, times = re.subn(r"^from django\.urls import ([\w, ]+)$", with_include, after, flags=re.MULTILINE)
        if times != 1:
            raise LookupError("include")
    return after


def elements(source, name):
    """Return what is in the list to which a module first gives a name."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return [ast.dump(element) for element in getattr(node.value, "elts", [])]
    return []


def with_include(match):
    return f"from django.urls import {', '.join(sorted(['include', *match[1].split(', ')], key=str.lower))}"
