"""With `use_celery`, a worker ends when it is told to, goes on when the broker fails, and says whether it is alive.

Real PostgreSQL, Redis and workers. What is mended in kombu and celery is tested with and without: where a worker does
well without, the mending can go.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import clean_environment
from servers import wait_until
from test_celery import SETTINGS, Stack, black_holed, refused, restarted, stopped

# As on servers, where what nobody acknowledges comes back after a quarter of an hour
PATIENT = SETTINGS.replace('"visibility_timeout": 5', '"visibility_timeout": 900')

TASKS = """

import signal

from celery import signals
from celery.concurrency import asynpool
from kombu.transport import redis


@shared_task
def long_at_first(seconds):
    record("begun")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ran WHERE token = 'begun'")
        first = cursor.fetchone() == (1,)
    time.sleep(seconds if first else 0)
    record("done")


@signals.celeryd_init.connect
def take_back_what_is_mended(**kwargs):
    from my_project.scaling.tasks import kombu_fixes, main_process

    if os.environ.get("AS_UPSTREAM") == "channel":
        redis.Transport.Channel = redis.Channel
    if os.environ.get("AS_UPSTREAM") == "heartbeats":
        signals.worker_init.disconnect(kombu_fixes.send_no_heartbeats)
    if os.environ.get("AS_UPSTREAM") == "sigterm":
        main_process.Housekeeping.on_sigterm = lambda *args: signal.raise_signal(signal.SIGQUIT)


@signals.celeryd_init.connect
def send_sigterm_amid_a_result(**kwargs):
    # when the main process has read that a task has ended, and has not noted it
    on_job_ready = asynpool.AsynPool.on_job_ready

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        on_job_ready(*args)

    if os.environ.get("SIGTERM_AMID_A_RESULT"):
        asynpool.AsynPool.on_job_ready = interrupted


@signals.worker_ready.connect
def hang_on_signal(**kwargs):
    signal.signal(signal.SIGUSR2, lambda *_: time.sleep(60))
"""


@pytest.fixture(scope="module")
def with_celery(set_up):
    return set_up(use_celery=True)


@pytest.fixture(scope="module")
def whole_stack(with_celery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    folder.chmod(0o755)
    stack = Stack(with_celery, folder)
    with (stack.project.package / "accounts" / "tasks.py").open("a") as tasks:
        tasks.write(TASKS)
    (folder / "celery_settings.py").write_text(PATIENT)
    stack.site.start("/none/")
    yield stack
    stack.close()


@pytest.fixture
def stack(whole_stack):
    """The servers, without a worker."""
    whole_stack.clear()
    yield whole_stack
    whole_stack.redis.ask("CONFIG SET maxmemory 0")
    whole_stack.clear()


def mended(what):
    """Run a test with what is mended and without."""
    return pytest.mark.parametrize("environment", [{}, {"AS_UPSTREAM": what}], ids=["mended", "as upstream"])


def first_process(stack):
    """Wait until long_at_first() has begun; return its process."""
    ((pid,),) = wait_until(lambda: stack.execute("SELECT pid FROM ran WHERE token = 'begun'"), 30)
    return psutil.Process(pid)


def has_ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# The end of a worker


def test_sigterm_ends_a_worker_in_time(stack):
    """With the time that it has on servers; what has not ended then is done by the next worker at once."""
    environment = {"DJANGO_SETTINGS_MODULE": "outage_settings"}
    worker = stack.start("worker", "--concurrency=1", **environment)
    stack.do("long_at_first.delay(40)")
    first_process(stack)
    took = worker.signal(signal.SIGTERM)
    ran = stack.ran()
    stack.start("worker", "--concurrency=1", **environment)
    wait_until(lambda: stack.ran() == {"begun": 2, "done": 1}, 30)

    assert 20 <= took < 25
    assert ran == {"begun": 1}


def test_sigterm_to_all_processes_loses_no_task(stack):
    worker = stack.start("worker", "--concurrency=1")
    stack.do("long_at_first.delay(40)")
    first_process(stack)
    os.killpg(worker.process.pid, signal.SIGTERM)
    worker.process.wait(30)
    stack.start("worker", "--concurrency=1")

    wait_until(lambda: stack.ran() == {"begun": 2, "done": 1}, 30)


def test_sigterm_ends_a_worker_whose_broker_is_refused(stack):
    worker = stack.start("worker", "--concurrency=1")
    with refused(stack):
        wait_until(lambda: worker.lines("error"))
        took = worker.signal(signal.SIGTERM)

    assert took < 10


@mended("heartbeats")
def test_sigterm_ends_a_worker_whose_broker_hangs(stack, environment):
    worker = stack.start("worker", "--concurrency=1", **environment)
    with black_holed(stack):
        time.sleep(4)  # two heartbeats
        worker.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired) if environment else contextlib.nullcontext():
            worker.process.wait(10)


@mended("sigterm")
def test_sigterm_ends_a_worker_that_reads_a_result(stack, environment):
    """Upstream the process that sent it ends half a minute later."""
    worker = stack.start("worker", "--concurrency=1", SIGTERM_AMID_A_RESULT="1", **environment)
    stack.do("record.delay('last')")
    wait_until(stack.ran)

    if environment:
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(15)
    else:
        worker.process.wait(25)
        assert not worker.lines("critical")
        assert stack.redis.ask("SELECT 1\r\nHLEN unacked") == "+OK\r\n:0"


# A broker that fails


def fill(redis):
    redis.ask("CONFIG SET maxmemory-policy noeviction")
    redis.ask("CONFIG SET maxmemory 1")


def test_lost_connection_ends_what_runs_before_it_runs_again(stack):
    stack.start("worker", "--concurrency=2")
    stack.do("long_at_first.delay(40)")
    first = first_process(stack)
    with refused(stack):
        wait_until(lambda: has_ended(first), 30)

    wait_until(lambda: stack.ran() == {"begun": 2, "done": 1}, 30)


@mended("channel")
def test_worker_outlives_a_restart_of_redis(stack, environment):
    """What ran is done at once; upstream it waits for TASK_VISIBILITY, and most workers end."""
    worker = stack.start("worker", "--concurrency=2", **environment)
    stack.do("long_at_first.delay(40)")
    first_process(stack)
    with restarted(stack):
        time.sleep(1)

    if environment:
        time.sleep(8)
        assert stack.ran() == {"begun": 1}
    else:
        wait_until(lambda: stack.ran() == {"begun": 2, "done": 1}, 30)
        assert worker.process.poll() is None


@mended("channel")
def test_worker_empties_a_full_redis(stack, environment):
    worker = stack.start("worker", "--concurrency=1", **environment)
    stack.do("for number in range(4): record.delay(number, 0.5)")
    wait_until(stack.ran)
    fill(stack.redis)

    if environment:
        wait_until(lambda: "Connection to broker lost" in str(worker.lines("warning")), 30)
        assert len(stack.ran()) < 4
    else:
        wait_until(lambda: stack.ran() == {str(number): 1 for number in range(4)}, 30)
        wait_until(lambda: stack.redis.ask("SELECT 1\r\nHLEN unacked") == "+OK\r\n:0")
        assert "Connection to broker lost" not in str(worker.lines("warning"))


def test_worker_waits_for_a_full_redis(stack):
    stack.do("record.delay('waits')")
    fill(stack.redis)
    worker = stack.start("worker", wait=False)
    wait_until(lambda: worker.lines("error"), 30)
    stack.redis.ask("CONFIG SET maxmemory 0")

    wait_until(lambda: stack.ran() == {"waits": 1}, 30)


@mended("channel")
def test_worker_goes_on_when_it_could_not_acknowledge(stack, environment):
    worker = stack.start("worker", "--concurrency=1", **environment)
    stack.do("long_at_first.delay(2)")
    first_process(stack)
    with stopped(stack):
        wait_until(lambda: "Couldn't ack" in str(worker.lines("critical")), 30)
    stack.do("record.delay('next')")

    if environment:
        time.sleep(5)
        assert not stack.ran()["next"]
    else:
        wait_until(lambda: stack.ran()["next"], 30)


# Liveness


def alive(stack, name, **environment):
    program = stack.project.package / "scaling" / "tasks" / "alive.py"
    environment = stack.site.environment | environment
    return stack.project.run(stack.project.python, program, name, check=False, **environment)


def test_liveness_is_that_of_the_main_loop(stack):
    """A main process that hangs is not alive, whatever its threads do; without a broker it is."""
    worker = stack.start("worker", "--hostname=high@%h")
    wait_until(lambda: alive(stack, "high").returncode == 0)
    for outage in (refused, black_holed, stopped):
        with outage(stack):
            time.sleep(5)
            assert alive(stack, "high").returncode == 0
    worker.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: alive(stack, "high").returncode == 1)

    assert re.fullmatch(r"high was last alive \d+ seconds ago\n", alive(stack, "high").stdout)


def test_liveness_is_that_of_one_environment(stack, tmp_path):
    stack.start("worker", "--hostname=high@%h")
    wait_until(lambda: alive(stack, "high").returncode == 0)
    other = tmp_path / "config.json"
    other.write_bytes(Path(stack.site.environment["DJANGO_CONFIG"]).read_bytes())

    assert alive(stack, "high", DJANGO_CONFIG=str(other)).returncode == 1


@pytest.mark.parametrize("kind", ["link", "open folder", "foreign folder"])
def test_liveness_trusts_nobody_elses_files(stack, tmp_path, kind):
    folder, target = tmp_path / f"my_project-{os.getuid()}", tmp_path / "target"
    target.mkdir(mode=0o700)
    if kind == "link":
        folder.symlink_to(target)
    else:
        folder.mkdir()
        folder.chmod(0o777 if kind == "open folder" else 0o700)
    if kind == "foreign folder":
        if os.getuid():
            pytest.skip("needs root, who can give files away")
        os.chown(folder, 12345, 12345)
    worker = stack.start("worker", "--hostname=high@%h", TMPDIR=str(tmp_path))
    probe = alive(stack, "high", TMPDIR=str(tmp_path))
    said = f"{folder} is not a folder of this user alone: delete it, or set TMPDIR"

    assert probe.returncode == 1
    assert said in probe.stdout
    assert said in str(worker.lines("error"))
    assert not list(folder.iterdir())


# What a developer meets


def test_make_dev_says_why_redis_does_not_start(with_celery, tmp_path):
    project = with_celery.copy(tmp_path)
    data = project.path / ".local" / "redis"
    (data / "appendonlydir").mkdir(parents=True)
    for file in ("appendonly.aof", "appendonlydir/appendonly.aof.manifest"):  # of Redis 6 and of Redis 7
        (data / file).write_text("damaged\n")
    ran = subprocess.run(
        ["make", "dev"], cwd=project.path, env=clean_environment(), capture_output=True, text=True, timeout=120
    )

    assert ran.returncode
    assert "AOF" in ran.stderr
    assert f"begin with empty queues: rm -r {data}" in ran.stderr


@pytest.mark.parametrize("base", ["celery.Task", "celery.contrib.django.task.DjangoTask"])
def test_task_without_the_outbox_is_reported(with_celery, tmp_path, base):
    project = with_celery.copy(tmp_path)
    with (project.package / "accounts" / "tasks.py").open("a") as tasks:
        tasks.write(
            "\n\nimport celery.contrib.django.task\nfrom celery import shared_task\n\n\n"
            f"@shared_task(base={base})\ndef other():\n    pass\n\n\n"
            "class Base(celery.current_app.Task):\n    abstract = True\n\n\n"
            "@shared_task(base=Base)\ndef derived():\n    pass\n"
        )
    environment = project.configure(tmp_path)
    said = project.manage("check", check=False, **environment)

    assert said.returncode == 1
    assert said.stdout.count("scaling.E004") == 1
    assert "The base of the task my_project.accounts.tasks.other is not derived from" in said.stdout
