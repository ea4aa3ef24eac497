"""The tests of a rendered project pass when its owner does what owners do, and say in a sentence what they miss."""

import re
import subprocess

import pytest
from conftest import clean_environment
from test_options import ON

USER = '''
from django.contrib.auth import models
from django.contrib.auth.base_user import BaseUserManager
from django.db import models as fields

from ..scaling.db.models import FetchModeManager


class UserManager(FetchModeManager, BaseUserManager):
    def create_superuser(self, email, password=None, **values):
        user = self.model(email=email, is_staff=True, is_superuser=True, **values)
        user.set_password(password)
        user.save()
        return user


class User(models.AbstractUser):
    """Somebody who logs in with the e-mail address."""

    username = None
    email = fields.EmailField(unique=True)
    nickname = fields.CharField(max_length=50, blank=True)
    birthday = fields.DateField()

    objects = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ["birthday"]
'''

USER_ADMIN = """
from django.contrib import admin
from django.contrib.auth import admin as auth

from .models import User


@admin.register(User)
class UserAdmin(auth.UserAdmin):
    ordering = ["email"]
    list_display = ["email", "birthday", "is_staff"]
    search_fields = ["email"]
    fieldsets = [(None, {"fields": ["email", "password", "birthday", "groups", "user_permissions"]})]
    add_fieldsets = [(None, {"fields": ["email", "birthday", "password1", "password2"]})]
"""

USER_MIGRATION = """
from datetime import date

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [
        migrations.AddField("user", "birthday", models.DateField(default=date(2000, 1, 1)), preserve_default=False)
    ]
"""

MODELS = """
from django.conf import settings
from django.db import models
from django.urls import reverse
from my_project.scaling.db.models import FetchModeManager, TimestampedModel


class Shelf(models.Model):
    code = models.SlugField(unique=True)
    opened = models.DateField()
    keeper = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT)

    objects = FetchModeManager()


class Book(TimestampedModel):
    isbn = models.CharField(max_length=13, unique=True)
    title = models.CharField(max_length=200)
    kind = models.CharField(max_length=1, choices=[("n", "novel"), ("p", "poems")])
    price = models.DecimalField(max_digits=6, decimal_places=2)
    sequel_of = models.ForeignKey("self", models.SET_NULL, null=True, blank=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="written")
    editor = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="edited")
    shelves = models.ManyToManyField(Shelf)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("book", args=[self.pk])


class Loan(models.Model):
    book = models.ForeignKey(Book, models.CASCADE)
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)

    objects = FetchModeManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["book", "reader"], name="one_loan")]
"""

ADMIN = """
from django.contrib import admin

from .models import Book, Loan, Shelf


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "editor", "price"]


admin.site.register([Loan, Shelf])
"""

GROUP_MIGRATION = """
from django.db import migrations


def make_group(apps, schema_editor):
    apps.get_model("auth", "Group").objects.create(name="Librarians")


class Migration(migrations.Migration):
    dependencies = [("library", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(make_group, migrations.RunPython.noop)]
"""

# A database of another program, where an app of its own reads and writes.
ARCHIVE_MODELS = """
from django.db import models
from my_project.scaling.db.models import FetchModeManager


class Scroll(models.Model):
    title = models.CharField(max_length=50)

    objects = FetchModeManager()
"""

ARCHIVE_ADMIN = """
from django.contrib import admin

from .models import Scroll

admin.site.register(Scroll)
"""

ARCHIVE_ROUTER = """
class Router:
    def db_for_read(self, model, **hints):
        return "archive" if model._meta.app_label == "archive" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        if "archive" in (db, app_label):
            return db == app_label
        return None
"""

VIEWS = """
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.views.generic import CreateView, DetailView

from .models import Book


class BookDetail(DetailView):
    model = Book
    template_name = "base.html"


class BookCreate(CreateView):
    model = Book
    fields = ["isbn", "title"]
    template_name = "base.html"


def home(request):
    return HttpResponse("<h1>The library</h1>")


def users(request):
    return HttpResponse(", ".join(get_user_model().objects.values_list("email", flat=True)))


def greet(get_response):
    def middleware(request):
        response = get_response(request)
        response["X-Reader"] = "known" if request.user.is_authenticated else "unknown"
        return response

    return middleware
"""

BOOKS = """books = [
    path("books/<int:pk>/", BookDetail.as_view(), name="book"),
    path("books/add/", BookCreate.as_view(), name="book_add"),
]
"""

TIMEOUTS = {
    "CACHE_SOCKET": 0.4,
    "DATABASE_LOCK": 4,
    "DATABASE_STATEMENT": 6,
    "DATABASE_TCP_USER": 8,
    "OUTGOING": 9,
    "REQUEST": 12,
    "GRACEFUL": 18,
    "PROXY": 25,
    "PROXY_KEEPALIVE": 50,
    "KEEPALIVE": 65,
    "DATABASE_IDLE_IN_TRANSACTION": 20,
    "DATABASE_MAX_AGE": 300,
    "COMMAND_LOCK": 3,
    "COMMAND_STATEMENT": 1800,
    "TASK_SOFT": 200,
    "TASK_HARD": 220,
    "TASK_VISIBILITY": 1000,
    "CLIENT": 8,
    "READY": 1.5,
    "DATABASE_SUSPECT": 0.7,
    "REPLICA_LAG": 2,
    "REPLICA_PIN": 5,
}


def edit(file, *replacements):
    """Replace each (pattern, text) once or more in a file."""
    content = file.read_text()
    for pattern, text in replacements:
        content, times = re.subn(pattern, text, content, flags=re.MULTILINE)
        assert times, f"{pattern} is not in {file}"
    file.write_text(content)


def add_app(project, name, **modules):
    """Make an app beside the package of the project, as `manage.py startapp` does."""
    (project.path / name / "migrations").mkdir(parents=True)
    for module in ("__init__", "migrations/__init__"):
        (project.path / name / f"{module}.py").touch()
    for module, content in modules.items():
        (project.path / name / f"{module}.py").write_text(content)
    edit(project.package / "settings" / "base.py", (r"^INSTALLED_APPS = \[", f'INSTALLED_APPS = [\n    "{name}",'))


def add_second_database(project):
    """Add the lines that docs/scaling.md shows, each where its comment says."""
    section = (project.path / "docs" / "scaling.md").read_text().partition("## A second database")[2]
    blocks = re.findall(r"^# ([^\n]+)\n(.+?)\n(?=\n|```)", section.partition("## ")[0], re.M | re.S)
    lines = {place.partition(",")[0]: line for place, line in blocks}
    package = project.package
    edit(package / "config.py", ("^    DATABASE_URL: ", lines.pop("config.py") + "\n\n    DATABASE_URL: "))
    example = '  "ARCHIVE_DATABASE_URL": "postgresql://user:password@localhost:5432/my_project",\n'
    edit(project.path / "config.example.json", (r'^(?=  "DATABASE_URL")', example))
    edit(
        project.path / "tests" / "conftest.py",
        ("^(import tempfile.*)", r"\1\nfrom urllib.parse import urlsplit"),
        (r'^(config\["DATABASE_URL"\] = .+)', r"\1\n" + lines.pop("tests/conftest.py")),
    )
    for place in ("settings/deploy.py", "settings/development.py"):
        with (package / place).open("a") as file:
            file.write(f"\n\n{lines.pop(place)}\n")
    assert not lines


def make_ordinary_edits(project):
    """Users with e-mail addresses for names and with required fields, an app, other addresses, texts and figures."""
    package, accounts = project.package, project.package / "accounts"
    (accounts / "models.py").write_text(USER)
    (accounts / "admin.py").write_text(USER_ADMIN)
    (accounts / "migrations" / "0002_user_birthday.py").write_text(USER_MIGRATION)
    add_app(project, "library", models=MODELS, admin=ADMIN, views=VIEWS)
    add_app(project, "archive", models=ARCHIVE_MODELS, admin=ARCHIVE_ADMIN, router=ARCHIVE_ROUTER)
    edit(
        package / "settings" / "base.py",
        (r"^DATABASE_ROUTERS = \[", 'DATABASE_ROUTERS = ["archive.router.Router", '),
    )
    add_second_database(project)
    edit(
        package / "settings" / "base.py",
        (r"^(MIDDLEWARE = \[(\n.+)+)\n\]", r'\1\n    "library.views.greet",\n]'),
        ("^LANGUAGE_CODE = .+", 'LANGUAGE_CODE = "de"\n\nUSE_I18N = True'),
        ("^DEFAULT_FROM_EMAIL = .+", 'DEFAULT_FROM_EMAIL = "The library <books@example.org>"'),
        (r'"img-src": \[CSP.SELF', '"img-src": [CSP.SELF, "https://images.example.com"'),
        ("^SHORT_TTL = .+", "SHORT_TTL = 5 * 60"),
        ("^MIDDLE_TTL = .+", "MIDDLE_TTL = 20 * 60"),
        ("^LONG_TTL = .+", "LONG_TTL = 2 * 60 * 60"),
        ("^FOREVER_TTL = .+", "FOREVER_TTL = 30 * 24 * 60 * 60"),
        ('"MAX_ENTRIES": 10_000', '"MAX_ENTRIES": 5_000'),
    )
    edit(
        package / "settings" / "tasks.py",
        (
            r"^(CELERY_BEAT_SCHEDULE = \{)",
            r'\1\n    "hourly": {"task": "my_project.scaling.tasks.clear_sessions", "schedule": 3600},',
        ),
    )
    edit(
        package / "urls.py",
        (r"^from django.views.generic.+", "from library.views import BookCreate, BookDetail, home, users"),
        (r'^    path\("", TemplateView.+', '    path("", home, name="home"),\n    path("users/", users),\n    *books,'),
        ("^urlpatterns = ", f"{BOOKS}\n\\g<0>"),
        (r'path\("admin/"', 'path("verwaltung/"'),
    )
    edit(package / "templates" / "404.html", ("Page not found", "There is no such page"))
    edit(package / "templates" / "base.html", ('<main id="main">', '<main id="main" lang="en">'))
    edit(
        package / "scaling" / "timeouts.py",
        *((f"^{name} = [^ \n]+", f"{name} = {value}") for name, value in TIMEOUTS.items()),
    )
    edit(project.path / "tests" / "config.json", ('"WARNING"', '"INFO"'))
    project.manage("makemigrations", "accounts", "library", "archive")
    (project.path / "library" / "migrations" / "0002_group.py").write_text(GROUP_MIGRATION)


# What the owner forgets: a manager of a model, related rows of a page, and what nobody can guess of a field.
FORGETFUL_MODELS = """
from django.db import models
from my_project.scaling.db.models import TimestampedModel


class Country(models.Model):
    code = models.CharField(max_length=2, unique=True)


class CodeField(models.Field):
    def db_type(self, connection):
        return "varchar(9)"


class City(TimestampedModel):
    code = CodeField()


class Author(TimestampedModel):
    name = models.CharField(max_length=50)
    home = models.ForeignKey(Country, models.CASCADE)
"""

FORGETFUL_ADMIN = """
from django.contrib import admin

from .models import Author, City, Country

admin.site.register([Author, City, Country])
"""

FORGETFUL_VIEWS = """
from django.http import HttpResponse

from .models import Author, Country


def authors(request):
    names = [author.name for author in Author.objects.all()]
    countries = [Country.objects.get(pk=author.home_id).code for author in Author.objects.all()]
    return HttpResponse(f"{names} {countries}")
"""


@pytest.fixture(scope="module")
def everything(set_up):
    return set_up(**ON | {"login_with": "username"})


@pytest.fixture
def project(everything, tmp_path):
    return everything.copy(tmp_path)


def test_tests_survive_ordinary_edits(project):
    make_ordinary_edits(project)

    project.run("make", "test")


def test_what_is_forgotten_is_said_in_a_sentence(project):
    add_app(project, "atlas", models=FORGETFUL_MODELS, admin=FORGETFUL_ADMIN, views=FORGETFUL_VIEWS)
    edit(
        project.package / "urls.py",
        (r"^from django.views.generic.+", r"\g<0>\n\nfrom atlas.views import authors"),
        (r'^    path\("", TemplateView.+', r'\g<0>\n    path("authors/", authors, name="authors"),'),
    )
    project.manage("makemigrations", "atlas")

    ran = project.run("make", "test", "ARGS=-n 0 --no-header tests/test_models.py tests/test_urls.py", check=False)

    assert set(re.findall(r"^FAILED (\S+)", ran.stdout, re.MULTILINE)) == {
        "tests/test_models.py::test_fetch_mode_of_every_model",
        "tests/test_urls.py::test_queries[authors]",
        "tests/test_urls.py::test_rows_of_every_model_in_the_admin",
    }, ran.stdout
    assert "atlas.Country: write `objects = FetchModeManager()`, or inherit TimestampedModel" in ran.stdout
    assert "No rows of atlas.City can be made: code is a CodeField." in ran.stdout
    assert re.search(r"Say in VALUES, tests/rows.py:\d+ what its fields hold", ran.stdout)
    assert "/authors/ sends 22 queries to the database, 10 are allowed." in ran.stdout
    assert "20 times, from atlas/views.py:9 authors" in ran.stdout
    assert re.search(r'give "authors" another ceiling in CEILINGS, tests/test_urls.py:\d+', ran.stdout)
    assert len(ran.stdout.splitlines()) < 60


def test_two_runs_at_once(project):
    """They share the server of the database, and the folders for temporary files."""
    command = ["make", "test", "ARGS=-n 1 -q tests/test_accounts.py tests/test_models.py tests/scaling/db"]
    runs = [
        subprocess.Popen(
            command,
            cwd=project.path,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=300)[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
