"""New migrations, checked by `make lint`: none may break the release that still runs, or block its tables.

New is what the main branch does not have, or on that branch itself the commit before. squawk judges their SQL. It is
collected in a database of its own, which is migrated up to there, since some of it depends on what PostgreSQL has.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

MAIN = ("origin/HEAD", "origin/main", "origin/master", "main", "master")

# What PostgreSQL 15 and the timeouts of a session make harmless, and matters of taste. A foreign key that comes with a
# new, empty column is not checked; one on a column that is there is told by constraint-missing-not-valid.
NOT_ASKED = [
    "adding-foreign-key-constraint",
    "ban-drop-not-null",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-robust-stmts",
    "prefer-text-field",
    "prefer-timestamp-tz",
    "require-lock-timeout",
    "require-statement-timeout",
]

SAFE_WAYS = {
    "adding-field-with-default": "add the field with null=True, and fill it in batches",
    "adding-not-nullable-field": "AddConstraintNotValid that it is not null, ValidateConstraint, then this",
    "adding-required-field": "db_default, or null=True",
    "ban-drop-column": "a release whose code no longer has the field; then drop it, with the comment below",
    "ban-drop-default": "db_default in place of default",
    "ban-drop-table": "a release whose code no longer has the model; then drop it, with the comment below",
    "changing-column-type": "a new field, written beside the old one; a longer varchar needs only the comment below",
    "constraint-missing-not-valid": "AddConstraintNotValid, and ValidateConstraint in a migration of its own",
    "disallowed-unique-constraint": "CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT ... USING INDEX, in RunSQL",
    "renaming-column": "leave the column its name: db_column",
    "renaming-table": "leave the table its name: db_table",
    "require-concurrent-index-creation": "AddIndexConcurrently, alone in a migration; for foreign keys db_index=False",
    "require-concurrent-index-deletion": "RemoveIndexConcurrently, alone in a migration",
}

IGNORED = re.compile(r"# squawk-ignore ([a-z, -]+): *\S")
OPERATION = re.compile(r"^--\n-- (.+)\n--$", re.MULTILINE)

REFUSAL = "A release that runs would break, or a table be blocked:\n"
ADVICE = """
"Migrations without downtime" in docs/operations.md has the safe ways step by step. What is safe all the same has a
comment in its migration that says why: # squawk-ignore RULE: a table of a hundred rows"""


class Command(BaseCommand):
    help = "Check that new migrations neither break the release that runs nor block its tables."
    requires_system_checks = ()

    def add_arguments(self, parser):
        parser.add_argument("--since", help="the commit whose migrations are known; by default what main has")

    def handle(self, since, **options):
        files = new_files(known_commit(since))
        problems = [problem for file, sql in collected(files) for problem in judge(file, sql)] if files else []
        if problems:
            raise CommandError("\n".join([REFUSAL, *problems, ADVICE]))


def git(*arguments):
    """Return what git says, or None if it fails."""
    ran = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    return ran.stdout.strip() if ran.returncode == 0 else None


def known_commit(since):
    """Return the commit whose migrations are known; None where there is none yet."""
    if since:
        if not (commit := git("rev-parse", "--verify", f"{since}^0")):
            raise CommandError(f"--since {since}: git knows no such commit.")
        return commit
    head = git("rev-parse", "--verify", "HEAD")
    commit = next(filter(None, (git("merge-base", "HEAD", branch) for branch in MAIN)), head)
    if commit == head:
        commit = git("rev-parse", "--verify", "HEAD^")
    if commit is None and git("rev-parse", "--is-shallow-repository") == "true":
        raise CommandError("In a shallow clone nobody can tell which migrations are new: git fetch --unshallow")
    return commit


def new_files(since):
    """Return the migrations that are not in a commit, as absolute paths."""
    known = git("ls-tree", "-r", "-z", "--name-only", since).split("\0") if since else []
    present = (git("ls-files", "-z", "--cached", "--others", "--exclude-standard") or "").split("\0")
    new = (Path(file) for file in {*present} - {*known} if re.search(r"(^|/)migrations/[^_/][^/]*\.py$", file))
    return {file.resolve() for file in new if file.exists()}


@contextlib.contextmanager
def scratch_database():
    """Let the connection, and so whatever a migration runs, use an empty database of its own for a while."""
    name = connection.settings_dict["NAME"]
    scratch = f"lint_{name}_{os.getpid()}"
    quoted = connection.ops.quote_name(scratch)
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {quoted}")
    connection.close()
    connection.settings_dict["NAME"] = scratch
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE {quoted}")


def collected(files):
    """Yield each migration in files with its SQL."""
    with scratch_database():
        executor = MigrationExecutor(connection)
        executor.recorder.ensure_schema()
        state = executor._create_project_state()
        for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes()):
            file = Path(sys.modules[type(migration).__module__].__file__)
            if file in files:
                sql = "\n".join(executor.loader.collect_sql([(migration, False)]))
                yield file, f"BEGIN;\n{sql}\nCOMMIT;" if migration.atomic else sql
            state = executor.apply_migration(state, migration)


def judge(file, sql):
    """Yield a text for each thing in the SQL of a migration that is not safe."""
    rules = ",".join([*NOT_ASKED, *IGNORED.findall(file.read_text(encoding="utf-8"))]).replace(" ", "")
    squawk = [Path(sys.executable).with_name("squawk"), "--reporter=json", "--pg-version=15", f"--exclude={rules}"]
    ran = subprocess.run(squawk, input=sql, capture_output=True, text=True, check=False)
    if not ran.stdout:
        raise CommandError(f"{file}: {ran.stderr}")
    for found in json.loads(ran.stdout):
        *before, statement = sql.splitlines()[: found["line"] + 1]
        operation = ["SQL", *OPERATION.findall("\n".join(before))][-1]
        rule, message = found["rule_name"], found["message"]
        safe = SAFE_WAYS.get(rule) or found["help"] or "see the documentation of squawk"
        yield f"{os.path.relpath(file)}: {operation}\n  {statement}\n  {rule}: {message}\n  Safe: {safe}"
