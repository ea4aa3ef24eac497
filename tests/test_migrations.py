"""New migrations that break the running release or block its tables are refused, and migrate waits for locks."""

import re
import subprocess
import textwrap

import psycopg
import pytest
from conftest import clean_environment

HEAD = """
from django.contrib.postgres.operations import (
    AddConstraintNotValid, AddIndexConcurrently, RemoveIndexConcurrently, ValidateConstraint
)
from django.db import migrations
from django.db.migrations import AddConstraint, AddField, AddIndex, AlterField, CreateModel, DeleteModel, RemoveField
from django.db.migrations import RenameField, RenameModel, RunPython, RunSQL, SeparateDatabaseAndState
from django.db.models import CASCADE, BigAutoField, BigIntegerField, CharField, CheckConstraint, ForeignKey, Index
from django.db.models import IntegerField, Q, TextField, UniqueConstraint

class Migration(migrations.Migration):
"""

# The operation of a migration, what squawk calls it, and what Django does; each builds on those before.
REFUSED = [
    ('AddField("item", "price", IntegerField(default=0))', "ban-drop-default", "Add field price to item"),
    ('RenameField("item", "price", "cost")', "renaming-column", "Rename field price on item to cost"),
    ('AddIndex("item", Index(fields=["cost"], name="cost"))', "require-concurrent-index-creation", "Create index cost"),
    ('RunSQL("CREATE INDEX text ON shop_item (text)")', "require-concurrent-index-creation", "Raw SQL operation"),
    ('AlterField("item", "title", TextField(unique=True))', "disallowed-unique-constraint", "Alter field title"),
    ('AlterField("item", "cost", BigIntegerField(null=True))', "changing-column-type", "Alter field cost on item"),
    ('AlterField("item", "cost", BigIntegerField())', "adding-not-nullable-field", "Alter field cost on item"),
    (
        'AddConstraint("item", CheckConstraint(condition=Q(cost__gt=0), name="positive"))',
        "constraint-missing-not-valid",
        "Create constraint positive",
    ),
    ('RemoveField("item", "text")', "ban-drop-column", "Remove field text from item"),
    ('RenameModel("item", "thing")', "renaming-table", "Rename model item to thing"),
    ('DeleteModel("thing")', "ban-drop-table", "Delete model thing"),
]

NOT_NULL = 'CheckConstraint(condition=Q(note__isnull=False), name="has_note")'

# The ways of docs/operations.md, and what was never a danger
SAFE = [
    'operations = [AddField("item", "price", IntegerField(db_default=0))]',
    'operations = [AddField("item", "note", TextField(null=True))]',
    'atomic = False\noperations = [AddIndexConcurrently("item", Index(fields=["price"], name="price"))]',
    'atomic = False\noperations = [RemoveIndexConcurrently("item", "price")]',
    f'operations = [RunPython(RunPython.noop), AddConstraintNotValid("item", {NOT_NULL})]',
    'operations = [ValidateConstraint("item", "has_note")]',
    "# squawk-ignore adding-not-nullable-field: has_note has been validated\n"
    'operations = [AlterField("item", "note", TextField())]',
    'operations = [AddField("item", "parent", ForeignKey("item", CASCADE, null=True, db_index=False))]',
    'atomic = False\noperations = [RunSQL("CREATE UNIQUE INDEX CONCURRENTLY one_title ON shop_item (title)")]',
    """operations = [SeparateDatabaseAndState(
        [RunSQL("ALTER TABLE shop_item ADD CONSTRAINT one_title UNIQUE USING INDEX one_title")],
        [AddConstraint("item", UniqueConstraint(fields=["title"], name="one_title"))],
    )]""",
    'operations = [AlterField("item", "text", TextField(null=True))]',
    'operations = [SeparateDatabaseAndState(state_operations=[RemoveField("item", "text")])]',
    "# squawk-ignore ban-drop-column: no release reads it since the last one\n"
    'operations = [RunSQL("ALTER TABLE shop_item DROP COLUMN text")]',
    """operations = [CreateModel("kind", [
        ("id", BigAutoField(primary_key=True)),
        ("name", CharField(max_length=9, db_index=True)),
        ("item", ForeignKey("item", CASCADE)),
    ])]""",
]


class Shop:
    """A project with an app that is in its main branch."""

    def __init__(self, project, url):
        self.project = project
        self.migrations = project.package / "shop" / "migrations"
        self.environment = {"DATABASE_URL": url}
        project.manage("makeapp", "shop", "--model", "Item", **self.environment)
        project.run("git", "init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *arguments):
        self.project.run("git", "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments)

    def commit(self):
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "…")

    def clear(self):
        for file in self.migrations.glob("00[0-9][0-9]_step.py"):
            file.unlink()

    def write(self, bodies):
        """Write a migration for each body, one after the other; return the names of the files."""
        last = "0001_initial"
        for number, body in enumerate(bodies, 2):
            body = textwrap.indent(f'dependencies = [("shop", "{last}")]\n{body}\n', "    ")
            last = f"{number:04}_step"
            (self.migrations / f"{last}.py").write_text(HEAD + body)
        return [f"{number:04}_step.py" for number in range(2, len(bodies) + 2)]

    def lint(self, *arguments):
        return self.project.manage("lintmigrations", *arguments, check=False, **self.environment)


@pytest.fixture(scope="module")
def shop_(default_project, database_url, tmp_path_factory):
    return Shop(default_project.copy(tmp_path_factory.mktemp("shop")), database_url)


@pytest.fixture
def shop(shop_):
    yield shop_
    shop_.clear()
    shop_.git("checkout", "--quiet", "main")


def test_defects_are_refused(shop):
    """Each with its file, its operation, the reason and a safe way."""
    files = shop.write([f"operations = [{operation}]" for operation, _, _ in REFUSED])

    linted = shop.lint()

    assert linted.returncode == 1
    for file, (_, rule, operation) in zip(files, REFUSED, strict=True):
        reports = re.findall(rf"^\S+/{file}: (.*)\n  .*\n  ({rule}): .+\n  Safe: .+", linted.stdout, re.MULTILINE)
        assert any(where.startswith(operation) for where, _ in reports), (file, rule, linted.stdout)


def test_safe_ways_are_accepted(shop):
    """They have run, too: what is judged has been migrated."""
    shop.write(SAFE)

    linted = shop.lint()

    assert linted.stdout == ""
    assert linted.returncode == 0


@pytest.mark.parametrize("comment", ["# squawk-ignore ban-drop-column", "# squawk-ignore ban-drop-column: "])
def test_comment_without_a_reason_counts_for_nothing(shop, comment):
    shop.write([f'{comment}\noperations = [RemoveField("item", "text")]'])

    assert "ban-drop-column" in shop.lint().stdout


def test_only_new_migrations_are_judged(shop):
    """Those that the main branch does not have, or on it those of the last commit and whatever is not committed."""
    shop.git("checkout", "--quiet", "-b", "branch")
    shop.write(['operations = [RemoveField("item", "text")]'])
    shop.commit()
    shop.commit()
    on_branch = shop.lint().returncode
    shop.git("checkout", "--quiet", "-b", "main-with-it")
    since = shop.lint("--since", "HEAD^^").returncode, shop.lint("--since", "HEAD^").returncode
    shop.git("branch", "--move", "main", "old")
    shop.git("branch", "--move", "main-with-it", "main")
    on_main = shop.lint().returncode
    shop.git("branch", "--move", "main", "branch-2")
    shop.git("branch", "--move", "old", "main")

    assert (on_branch, since, on_main) == (1, (1, 0), 0)


def test_shallow_clone(shop, tmp_path):
    shop.project.run("git", "clone", "--quiet", "--depth=1", shop.project.path.as_uri(), tmp_path / "clone")
    command = [shop.project.python, shop.project.path / "manage.py", "lintmigrations"]
    environment = clean_environment(**shop.environment)
    ran = subprocess.run(command, cwd=tmp_path / "clone", env=environment, capture_output=True, text=True)

    assert ran.returncode == 1
    assert "git fetch --unshallow" in ran.stderr


def test_lint_calls_it(shop):
    shop.write(['operations = [RemoveField("item", "text")]'])
    shop.git("add", ".")

    linted = shop.project.run("make", "lint", "SKIP=", check=False, **shop.environment)

    assert linted.returncode
    assert "ban-drop-column" in linted.stdout
    shop.git("reset", "--quiet")


def test_migrate_waits_for_a_lock(shop):
    """It lets go after COMMAND_LOCK, removes an index that was begun, and tries again until the lock is free."""
    steps = [
        'operations = [AddField("item", "price", IntegerField(db_default=0))]',
        'atomic = False\noperations = [AddIndexConcurrently("item", Index(fields=["price"], name="price"))]',
    ]
    with shop.project.database() as url:
        shop.write(steps[:1])
        shop.project.manage("migrate", DATABASE_URL=url)
        shop.write(steps)
        with psycopg.connect(url) as locker:
            locker.execute("LOCK TABLE shop_item IN ROW EXCLUSIVE MODE")  # as an INSERT does
            command = [shop.project.python, "manage.py", "migrate"]
            environment = clean_environment(DATABASE_URL=url)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            with subprocess.Popen(command, cwd=shop.project.path, env=environment, **pipes) as migrate:
                output = "".join(iter(migrate.stdout.readline, "Tries again, 29 times at most.\n"))
                locker.commit()
                output += migrate.communicate(timeout=60)[0]
        with psycopg.connect(url) as reader:
            valid = reader.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'price'::regclass").fetchall()

    assert "lock timeout" in output
    assert migrate.returncode == 0, output
    assert valid == [(True,)]
