"""With `use_celery`, a task has a row in the outbox from the transaction that asked for it until the task has ended.

Real PostgreSQL, Redis, gunicorn, workers and beat, as in test_celery.py, which has the helpers.
"""

import contextlib
import socket
import time

import pytest
from servers import wait_until
from test_celery import RABBITMQ, Stack, with_celery  # noqa: F401  the last one is a fixture

TASKS = """

from celery.exceptions import Reject
from django.db import transaction


@shared_task(bind=True, max_retries=2)
def try_again(self, token, countdown=0, seconds=0):
    record(f"{token} {self.request.retries}")
    time.sleep(seconds)
    with transaction.atomic():
        raise self.retry(countdown=countdown)


@shared_task(bind=True, autoretry_for=(ValueError,), max_retries=1, retry_backoff=1, retry_jitter=False)
def back_off(self):
    record(f"attempt {self.request.retries}")
    raise ValueError("deliberate")


@shared_task(bind=True)
def return_after_retry(self):
    record(f"attempt {self.request.retries}")
    if self.request.retries == 0:
        self.retry(countdown=0.1, throw=False)


@shared_task(bind=True)
def retry_wrongly(self):
    raise self.retry(args=["one too many"])


@shared_task
def kill():
    record("killed")
    os.kill(os.getpid(), 9)


@shared_task
def rest(seconds=0):
    time.sleep(seconds)


@shared_task(bind=True)
def reject(self, requeue=False):
    record("rejected")
    if not self.request.delivery_info["redelivered"]:
        raise Reject("deliberate", requeue=requeue)
"""

BAD_SCHEDULE = """
from celery_settings import *

TICK = {"task": "my_project.accounts.tasks.record", "schedule": 1, "args": ["tick"]}
CELERY_BEAT_SCHEDULE = {
    "no-such-queue": TICK | {"options": {"queue": "urgent"}},
    "no-such-task": TICK | {"task": "no.such.task"},
    "no-such-argument": TICK | {"kwargs": {"wrong": 1}},
    "good": TICK,
}
"""


@pytest.fixture(scope="module")
def statsd():
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


@pytest.fixture(scope="module")
def whole_stack(with_celery, tmp_path_factory, statsd):  # noqa: F811
    folder = tmp_path_factory.mktemp("outbox")
    folder.chmod(0o755)
    stack = Stack(with_celery, folder)
    with (stack.project.package / "accounts" / "tasks.py").open("a") as tasks:
        tasks.write(TASKS)
    for file, figure, lower in (
        ("upkeep.py", "REPORT = 60", "REPORT = 1"),
        ("outbox.py", "DELIVERIES = 5", "DELIVERIES = 2"),
    ):
        module = stack.project.package / "scaling" / "tasks" / file
        assert figure in module.read_text()
        module.write_text(module.read_text().replace(figure, lower))
    with (folder / "celery_settings.py").open("a") as settings:
        settings.write(f'STATSD_URL = "udp://127.0.0.1:{statsd.getsockname()[1]}"\n')
    (folder / "bad_schedule.py").write_text(BAD_SCHEDULE)
    stack.site.start("/none/")
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def shared_workers(whole_stack):
    whole_stack.clear()
    return [whole_stack.start("worker", "--concurrency=1", f"--queues={queues}") for queues in ("default", "low,high")]


@pytest.fixture
def stack(whole_stack, shared_workers):
    """The servers, with a worker of the queue `default` and one of the others, which have no task."""
    whole_stack.truncate()
    for worker in shared_workers:
        worker.seen = worker.log.stat().st_size
    return whole_stack


@pytest.fixture
def worker(stack, shared_workers):
    return shared_workers[0]


def rows(stack, condition="true"):
    return stack.execute(f"SELECT count(*) FROM scaling_tasks_outboxmessage WHERE {condition}")[0][0]


def errors(stack):
    return [error for (error,) in stack.execute("SELECT error FROM scaling_tasks_outboxmessage WHERE error != ''")]


def nothing_left(stack):
    """Tell whether no row is left, and the broker has nothing that was not acknowledged."""
    return rows(stack) == 0 and (RABBITMQ or stack.redis.ask("SELECT 1\r\nHLEN unacked").endswith(":0"))


@contextlib.contextmanager
def closed_to_new_connections(stack):
    """A broker that keeps the connections which it has."""
    stack.relay.listener.shutdown(socket.SHUT_RDWR)
    stack.relay.listener.close()
    yield
    stack.relay.open()


# A row lasts until its task has ended, however that was


def test_countdown_passes_in_the_database(stack):
    """A broker that has a task for longer than its visibility timeout, here 5 s, gives it to another worker, too."""
    stack.do("for number in range(20): record.apply_async_on_commit([number], countdown=7)")
    stack.do("record.delay_on_commit('now')")
    wait_until(lambda: stack.ran() == {"now": 1})
    wait_until(lambda: len(stack.ran()) == 21 and nothing_left(stack), 30)

    assert set(stack.ran().values()) == {1}


def test_expired_task_leaves(stack):
    stack.do("record.delay_on_commit('busy', 1.5)")
    wait_until(lambda: rows(stack, "sent IS NOT NULL"))
    stack.do("record.apply_async_on_commit(['expired'], expires=1)")
    wait_until(lambda: nothing_left(stack))

    assert stack.ran() == {"busy": 1}


def test_task_that_expired_is_not_sent(stack, shared_workers):
    stack.do("record.apply_async_on_commit(['expired'], expires=0, task_id='late')\nrecord.delay_on_commit('next')")
    wait_until(lambda: nothing_left(stack))
    lines = [line for worker in shared_workers for line in worker.lines() if line.get("id") == "late"]

    assert stack.ran() == {"next": 1}
    assert [line["outcome"] for line in lines] == ["expired"]


def test_revoked_task_leaves(stack, worker):
    stack.do("record.app.control.revoke('condemned')")
    wait_until(lambda: any("condemned" in line["message"] for line in worker.lines()))
    stack.do("record.apply_async_on_commit(['revoked'], task_id='condemned')")
    wait_until(lambda: nothing_left(stack))

    assert not stack.ran()


def test_terminated_task_leaves(stack):
    stack.do("record.apply_async_on_commit(['terminated', 20], task_id='long')")
    wait_until(lambda: rows(stack, "started IS NOT NULL"))
    stack.do("record.app.control.revoke('long', terminate=True, signal='SIGKILL')")
    wait_until(lambda: nothing_left(stack))

    assert not stack.ran()


def test_task_out_of_time_leaves(stack):
    stack.do("run_away.apply_async_on_commit(soft_time_limit=1, time_limit=2)")
    wait_until(lambda: rows(stack, "sent IS NOT NULL"))
    wait_until(lambda: nothing_left(stack))


@pytest.mark.parametrize("requeue", [False, True])
def test_rejected_task_leaves(stack, requeue):
    """One that has itself delivered again leaves in the end."""
    stack.do(f"reject.delay_on_commit({requeue})")
    wait_until(lambda: stack.ran() and nothing_left(stack))

    assert stack.ran() == {"rejected": 1 + requeue}


def test_unknown_task_is_kept_with_an_error(stack):
    stack.do("@shared_task(name='of.a.later.release')\ndef later(): pass\nlater.delay_on_commit()")
    (error,) = wait_until(lambda: errors(stack))

    assert "of.a.later.release" in error


def test_discarded_task_is_not_run_although_it_was_sent(stack):
    """Nor does it come back when the broker has lost it, too: nothing has to be purged there."""
    stack.do("record.delay_on_commit('busy', 2)\nfor number in range(5): record.delay_on_commit(number)")
    wait_until(lambda: rows(stack, "sent IS NOT NULL AND started IS NULL") == 5)
    stack.do(
        "from django.core.management import call_command\n"
        "call_command('outbox', 'discard', '--queue', 'default', '--state', 'sent')\nrecord.delay_on_commit('next')"
    )
    wait_until(lambda: nothing_left(stack) and stack.ran()["next"])

    assert stack.ran() == {"busy": 1, "next": 1}


def test_discarded_task_is_not_run_while_the_database_is_away(stack, worker):
    """Nobody can say that its row is gone: it waits until somebody can."""

    def outcomes():
        return [line["outcome"] for line in worker.lines() if line.get("id") == task and "outcome" in line]

    stack.do("rest.delay_on_commit(3)\nrest.delay_on_commit()")
    wait_until(lambda: rows(stack, "started IS NOT NULL") == rows(stack, "sent IS NOT NULL AND started IS NULL") == 1)
    ((task,),) = stack.execute("SELECT task_id FROM scaling_tasks_outboxmessage WHERE started IS NULL")
    stack.do(f"from django.core.management import call_command\ncall_command('outbox', 'discard', '{task}')")
    stack.postgres.control("stop", "-m", "immediate")
    try:
        wait_until(outcomes)
    finally:
        stack.postgres.control("start")
    wait_until(lambda: "ignored" in outcomes(), 30)

    assert set(outcomes()) == {"rejected", "ignored"}


def test_task_that_has_ended_is_not_run_when_it_is_delivered_again(stack):
    stack.do("record.delay_on_commit('once')")
    wait_until(lambda: stack.ran() and nothing_left(stack))
    (pk,) = stack.execute("SELECT last_value FROM scaling_tasks_outboxmessage_id_seq")[0]
    stack.do(f"record.app.send_task(record.name, ['once'], headers={{'outbox': {pk}}})\nrecord.delay('next')")
    wait_until(lambda: stack.ran()["next"])

    assert stack.ran() == {"once": 1, "next": 1}


# Retries


@pytest.mark.parametrize("call", ["delay", "delay_on_commit"])
def test_retry_survives_a_broker_that_its_process_cannot_reach(stack, worker, call):
    """The message is acknowledged all the same: the main process has a connection."""
    (child,) = worker.children()
    child.kill()  # the next one has no connection yet
    stack.do(f"try_again.{call}('a', countdown=0.2, seconds=0.5)")
    wait_until(stack.ran)
    with closed_to_new_connections(stack):
        wait_until(lambda: [line for line in worker.lines() if line.get("outcome")])
    wait_until(lambda: len(stack.ran()) == 3)
    wait_until(lambda: nothing_left(stack))

    assert stack.ran() == {"a 0": 1, "a 1": 1, "a 2": 1}


def test_retry_goes_to_the_broker_if_the_database_does_not_take_it(stack):
    stack.do("try_again.delay('a', countdown=0.2, seconds=0.5)")
    wait_until(stack.ran)
    stack.execute("ALTER TABLE scaling_tasks_outboxmessage RENAME TO away")
    try:
        wait_until(lambda: len(stack.ran()) == 3)
    finally:
        stack.execute("ALTER TABLE away RENAME TO scaling_tasks_outboxmessage")
    wait_until(lambda: nothing_left(stack))

    assert stack.ran() == {"a 0": 1, "a 1": 1, "a 2": 1}


def test_retries_are_counted_and_end(stack, worker):
    """With pauses of 1 s, and nothing of them in the broker."""
    stack.do("back_off.apply_async_on_commit(queue='default', headers={'colour': 'blue'})")
    wait_until(lambda: stack.ran()["attempt 0"])
    started = time.monotonic()
    wait_until(lambda: stack.ran()["attempt 1"])
    took = time.monotonic() - started
    wait_until(lambda: nothing_left(stack))

    assert 0.7 < took < 10
    assert stack.ran() == {"attempt 0": 1, "attempt 1": 1}
    assert [line["outcome"] for line in worker.lines() if "task" in line] == ["retry", "failure"]


def test_retry_keeps_queue_and_id(stack, shared_workers):
    stack.do("back_off.apply_async_on_commit(queue='low', task_id='the-same')")
    wait_until(lambda: stack.ran()["attempt 1"] and nothing_left(stack))

    lines = [line for line in shared_workers[1].lines() if "task" in line]
    assert [(line["queue"], line["id"]) for line in lines] == [("low", "the-same")] * 2


def test_task_may_end_after_it_asked_for_a_retry(stack):
    stack.do("return_after_retry.delay_on_commit()")
    wait_until(lambda: len(stack.ran()) == 2 and nothing_left(stack))

    assert stack.ran() == {"attempt 0": 1, "attempt 1": 1}


def test_wrong_retry_is_a_failure(stack, worker):
    stack.do("retry_wrongly.delay_on_commit()")
    (line,) = wait_until(lambda: worker.lines("error"))

    assert line["outcome"] == "failure"
    assert "TypeError" in line["exception"]
    wait_until(lambda: nothing_left(stack))


# What cannot go well


def test_task_that_kills_its_process_is_given_up(stack, worker):
    stack.do("kill.delay_on_commit()\nrecord.delay_on_commit('next')")
    (error,) = wait_until(lambda: errors(stack), 60)
    wait_until(lambda: stack.ran()["next"])

    assert stack.ran() == {"killed": 2, "next": 1}
    assert "2 times" in error
    assert any("given up" in line["message"] for line in worker.lines("error"))


@pytest.mark.skipif(bool(RABBITMQ), reason="is about a Redis")
def test_full_broker_is_one_that_is_away(stack, worker):
    stack.redis.ask("CONFIG SET maxmemory 1")
    try:
        stack.do("for number in range(3): record.delay_on_commit(number)")
        wait_until(lambda: [line for line in worker.lines("error") if "cannot be sent" in line["message"]])
        unsent = rows(stack, "sent IS NULL AND error = ''")
    finally:
        stack.redis.ask("CONFIG SET maxmemory 0")
    wait_until(lambda: len(stack.ran()) == 3 and nothing_left(stack))

    assert unsent == 3


def test_beat_runs_the_good_entries(stack):
    """One that cannot be run stops no later one, and is named."""
    beat = stack.start("beat", wait=False, DJANGO_SETTINGS_MODULE="bad_schedule")
    wait_until(lambda: stack.ran()["tick"] >= 2, 60)
    errors = [line["message"] for line in beat.lines("error")]
    beat.stop()

    for name in ("no-such-queue", "no-such-task", "no-such-argument"):
        assert any(name in error for error in errors), errors


# What is seen of it


def reports(workers):
    return [line for worker in workers for line in worker.lines() if "oldest_seconds" in line]


def test_ages_and_lengths_are_reported(stack, shared_workers, statsd):
    """To the log and to statsd, by one process at a time."""
    stack.do("record.delay_on_commit('busy', 3)\nfor number in range(4): record.delay_on_commit(number)")
    stack.do(
        "from my_project.scaling.tasks.models import OutboxMessage\nOutboxMessage.objects.create(error='deliberate')"
    )
    wait_until(lambda: [line for line in reports(shared_workers) if line["queues"].get("default") == 4])
    before, started = len(reports(shared_workers)), time.monotonic()
    wait_until(lambda: "queue.length:4|g|#queue:default" in (datagram := statsd.recv(10_000).decode()) and datagram)
    wait_until(lambda: len(reports(shared_workers)) >= before + 3)
    line = reports(shared_workers)[-1]

    assert line["errors"] == 1
    assert line["queues"].keys() == {"high", "default", "low"}
    assert len(reports(shared_workers)) - before <= time.monotonic() - started + 1
