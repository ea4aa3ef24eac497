"""Make an app in the style of this project: `make app NAME=pins`."""

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
        places = {
            "app": PACKAGE / name,
            "templates": PACKAGE / "templates" / name,
            "tests": settings.BASE_DIR / "tests" / f"test_{name}.py",
        }
        refuse_name(name, places.values())
        model = model or singular(name)
        refuse_model(name, model)
        context = {
            "package": PACKAGE.name,
            "model": model,
            "title": name.replace("_", " ").capitalize(),
        }
        with tempfile.TemporaryDirectory() as folder, ExitStack() as undo:
            ours = {"template": str(TEMPLATE), "extensions": ["py", "html"], "files": [], "verbosity": 0}
            super().handle(name=name, directory=folder, **ours, **context)
            for kind, place in places.items():
                undo.callback(remove, place)
                made = Path(folder, kind)
                shutil.move(made / place.name if place.suffix else made, place)
            missing = self.add_to_site(name, undo)
            if not missing:
                self.make_migration(name)
            tidy(places["app"], places["tests"])
            undo.pop_all()
        made = ", ".join(str(place.relative_to(settings.BASE_DIR)) for place in places.values())
        self.stdout.write(f"Made {made}, with the model {model}; MODEL= names it otherwise.")
        for line in missing:
            self.stdout.write(f"Not done, as the file is not as it was: add {line}")
        first = "Then" if missing else "Give it the fields that it needs, in models.py, and then"
        self.stdout.write(f"{first}: .venv/bin/python manage.py makemigrations {name}")
        self.stdout.write(f"It is at /{name}/ after manage.py migrate, which make dev runs when it starts.")
{% raw %}        entry = f"<li><a href=\"{{% url '{name}:list' %}}\">{context['title']}</a></li>"
{% endraw %}
        self.stdout.write(f"For the menu, in {PACKAGE.name}/templates/base.html: {entry}")

    def add_to_site(self, name, undo):
        """Add the app to the settings and the addresses; return what has to be added by hand."""
        lines = [
            (SETTINGS, "INSTALLED_APPS", f'"{PACKAGE.name}.{name}"'),
            (URLS, "urlpatterns", f'path("{name}/", include("{PACKAGE.name}.{name}.urls"))'),
        ]
        texts = {file: added(file.read_text(), *line) for file, *line in lines}
        if not all(texts.values()):
            return [f"{element}, to {to} of {file.relative_to(settings.BASE_DIR)}" for file, to, element in lines]
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
    """Return the model of a plural that ends in a plain s, or raise a CommandError: others take a dictionary."""
    if not name.endswith("s") or name.endswith(("es", "is", "ss", "us")):
        raise CommandError(f"Name the model of {name!r}, one of its rows, as in: make app NAME=stories MODEL=Story")
    return "".join(word.capitalize() for word in name[:-1].split("_"))


def refuse_name(name, places):
    """Raise a CommandError for an app that cannot be made."""
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or iskeyword(name):
        raise CommandError(
            f"{name!r} cannot be the name of an app, which has small letters, digits and _, 40 at most, begins with a"
            " letter, and is no keyword of Python. An example: make app NAME=blog_posts"
        )
    labels = {config.label: config.name for config in apps.get_app_configs()}
    if name in labels:
        raise CommandError(f"{name!r} is taken by the app {labels[name]}: apps need names of their own.")
    for place in [*places, PACKAGE / f"{name}.py"]:
        if place.exists():
            raise CommandError(f"{name!r} is taken: {place.relative_to(settings.BASE_DIR)} is there already.")
    if f"/{name}/" in (settings.STATIC_URL, settings.MEDIA_URL) or resolves(f"/{name}/"):
        raise CommandError(f"{name!r} is taken: /{name}/ is an address of the site already.")


def refuse_model(name, model):
    """Raise a CommandError for what is no name of a class."""
    if not model.isidentifier() or iskeyword(model) or not model[0].isupper():
        raise CommandError(f"{model!r} cannot be the name of a model: name it as in: make app NAME={name} MODEL=Story")


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


def added(text, name, element):
    """Return a module's text with one element more at the end of a list, or None if it is not written as expected."""
    if "include(" in element and not re.search(r"^from django\.urls import (.+, )?include\b", text, re.MULTILINE):
        return None
    # Lines that are indented, of which the last one ends in a comma
    known = rf"^({name} = \[\n(?: .*\n|\n)* .*,(?:  #.*)?\n)\]$"
    after, times = re.subn(known, rf"\1    {element},\n]", text, flags=re.MULTILINE)
    return after if times == 1 else None
