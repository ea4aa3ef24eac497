"""What it costs to ask for a task, and how many a worker does: milliseconds per task, and tasks per second.

    python benchmarks/tasks.py path/to/a/project    # one with use_celery that `make setup` has set up

Plain Celery's delay() is the peer, on the same Redis in the same run; the ways take turns. A transaction writes a
row, as a view would, before it asks. The worker has two processes.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conftest import Project, clean_environment
from servers import Postgres, Redis, wait_until

ROUNDS, CALLS, TASKS = 5, 200, 2000

TASK = """
from celery import shared_task


@shared_task
def nothing():
    pass
"""

ENQUEUE = f"""
import json, time
from celery import Celery
from django.conf import settings
from django.db import connection, transaction
from my_project.accounts.tasks import nothing

peer = Celery("peer", broker=settings.CELERY_BROKER_URL, set_as_current=False)
peer.conf.task_ignore_result = True
theirs = peer.task(nothing.run, name="theirs")


def in_transaction(ask):
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO written DEFAULT VALUES")
        ask()


ways = {{
    "delay(), plain Celery": theirs.delay,
    "delay(), ours": nothing.delay,
    "transaction": lambda: in_transaction(lambda: None),
    "transaction, plain delay_on_commit()": lambda: in_transaction(lambda: transaction.on_commit(theirs.delay)),
    "transaction, our delay_on_commit()": lambda: in_transaction(nothing.delay_on_commit),
}}
taken = {{way: [] for way in ways}}
for _ in range({ROUNDS}):
    for way, ask in ways.items():
        for call in range({CALLS}):
            start = time.perf_counter()
            ask()
            taken[way].append((time.perf_counter() - start) * 1000)
print(json.dumps(taken))
"""


def tasks_per_second(project, environment, log, ask, redis):
    """Ask for TASKS tasks, start a worker, and return how many it does in a second once it has begun."""
    redis.stop()
    redis.start()
    project.manage(
        "shell", "--no-imports", "-c", f"from my_project.accounts.tasks import nothing\n{ask}", **environment
    )
    with log.open("w") as output:
        worker = subprocess.Popen(
            [project.python, "-m", "celery", "--quiet", "--app", "my_project", "worker", "--concurrency=2"],
            cwd=project.path,
            env=clean_environment(**environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    done = 0
    while done < TASKS // 20:
        done = log.read_text().count('"success"')
        time.sleep(0.02)
    start, first = time.monotonic(), done
    wait_until(lambda: log.read_text().count('"success"') >= TASKS, 120)
    rate = (TASKS - first) / (time.monotonic() - start)
    worker.kill()
    worker.wait()
    return rate


def main(path):
    folder = Path(tempfile.mkdtemp(prefix="tasks-"))
    folder.chmod(0o755)
    project = Project(path).copy(folder)
    with (project.package / "accounts" / "tasks.py").open("a") as tasks:
        tasks.write(TASK)
    postgres, redis = Postgres(project.python, folder, fsync="on"), Redis(folder, appendonly="yes")
    postgres.control("start")
    redis.start()
    try:
        postgres.execute("CREATE DATABASE site")
        postgres.execute("CREATE TABLE written (id bigserial)", "site")
        url = postgres.url("site")
        environment = project.configure(folder, DATABASE_URL=url, CELERY_BROKER_URL=redis.url())
        project.manage("migrate", "--verbosity=0", **environment)
        taken = json.loads(project.manage("shell", "--no-imports", "-c", ENQUEUE, **environment).stdout)
        for way, milliseconds in taken.items():
            p95 = statistics.quantiles(milliseconds, n=20)[-1]
            print(f"{way:<40}{statistics.median(milliseconds):>6.2f} ms median{p95:>7.2f} ms p95")
        postgres.execute("TRUNCATE scaling_tasks_outboxmessage", "site")
        for way in ("delay", "delay_on_commit"):
            ask = f"for _ in range({TASKS}): nothing.{way}()"
            rate = tasks_per_second(project, environment, folder / f"{way}.log", ask, redis)
            print(f"{TASKS} tasks, {way + '()':<28}{rate:>6.0f} done a second")
    finally:
        redis.stop()
        postgres.control("stop", "-m", "immediate")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
