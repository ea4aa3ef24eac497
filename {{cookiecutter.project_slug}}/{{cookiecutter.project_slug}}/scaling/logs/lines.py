"""Logs on standard output: on servers one JSON object per line, on your machine coloured text."""

import collections
import contextlib
import fcntl
import json
import logging
import os
import re
import select
import tempfile
import threading
import time
from datetime import UTC, datetime

import msgspec
from django.utils.termcolors import colorize

from . import request_log

MAX_LINE = 16_000  # bytes: Docker and containerd break longer lines in two
FLUSH_SECONDS = 0.05
MAX_LINES = 1_000  # that wait while nothing can be written; more are dropped, and counted
READER_MS = 50  # for a pipe that is full to be read: before a line
WITHIN_LINE_MS = 1_000  # and in the middle of one, which would be cut off
MAX_TEXT = 4_000  # characters that are left of each text in a line that would be longer

# What no line repeats as an `extra`. Django adds the request, whose text is its URL with the query string.
OMITTED = {*vars(logging.makeLogRecord({})), "message", "asctime", "request"}

# In no line, and so not looked up for each: the names of threads, processes and tasks.
logging.logThreads = logging.logMultiprocessing = logging.logAsyncioTasks = False

lock = tempfile.TemporaryFile()  # noqa: SIM115  gunicorn's workers inherit it


class JSONFormatter(logging.Formatter):
    def format(self, record):
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": without_secrets(record.getMessage()),
        }
        if figures := request_log.current.get():
            line["request_id"] = figures.request_id
        line |= {name: value for name, value in vars(record).items() if name not in OMITTED and name not in line}
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        text = encoded(line)
        if len(text) > MAX_LINE:
            text = encoded({name: shortened(value) for name, value in line.items()})
        return text + b"\n"


class ReadableFormatter(logging.Formatter):
    def format(self, record):
        text = super().format(record) + (f"\n{record.sql}" if hasattr(record, "sql") else "")
        status = getattr(record, "status", 0) if record.name == request_log.__name__ else 0
        level = max(record.levelno, status // 100 * 10 - 10)  # 4xx as warnings, 5xx as errors
        if os.isatty(1) and level >= logging.WARNING:
            text = colorize(text, fg="red" if level >= logging.ERROR else "yellow")
        return f"{text}\n".encode(errors="backslashreplace")


class Handler(logging.Handler):
    """Write lines that those of other threads and processes never break.

    The lines of requests are written in batches, by a thread: a process that is killed loses those of its last tenth of
    a second. All other lines are written before the call returns, and perhaps before those of requests that ended
    earlier: `time` has the order. What cannot be written, as on a full disk or into a pipe that nobody reads, waits
    until it can, and nobody waits for that.
    """

    pid = None

    def emit(self, record):
        if self.pid != os.getpid():  # the first line, or a worker's: it has no thread of its parent's
            self.pid, self.lines, self.thread = os.getpid(), collections.deque(), None
            self.failure, self.dropped = None, 0
        try:
            if self.failure and len(self.lines) >= MAX_LINES:
                self.dropped += 1
                return
            self.lines.append(self.format(record))
            of_request = record.name == request_log.__name__ and record.levelno <= logging.INFO
            if not (of_request or self.failure):
                self.flush()
            if self.lines and not (self.thread and self.thread.is_alive()):
                self.thread = threading.Thread(target=self.keep_writing, name="logs", daemon=True)
                with contextlib.suppress(RuntimeError):  # the process is ending, which flushes all handlers
                    self.thread.start()
        except Exception:
            self.handleError(record)

    def keep_writing(self):
        while True:
            time.sleep(FLUSH_SECONDS)
            self.flush()

    def flush(self):
        """Write what there is; logging does so when the process ends."""
        with self.lock:
            if self.pid != os.getpid() or not self.lines:
                return
            reason, self.failure = self.failure, self.write()
            if self.dropped and not self.failure:
                report = {"name": __name__, "levelno": logging.ERROR, "levelname": "ERROR"}
                report["msg"] = f"{self.dropped} lines were dropped: {reason}"
                self.lines.append(self.format(logging.makeLogRecord(report)))
                self.dropped, self.failure = 0, self.write()

    def write(self):
        """Return None or, if not all could be written, why; the rest is left in `lines`."""
        try:
            # A pipe takes 4 kB at once: a longer text waits for those of other processes, and they for it.
            fcntl.lockf(lock, fcntl.LOCK_EX)
            try:
                while self.lines:
                    self.write_block()
            finally:
                fcntl.lockf(lock, fcntl.LOCK_UN)
        except OSError as error:
            return str(error)
        return None

    def write_block(self):
        """Write a line, and with it those that a pipe takes along at once."""
        block, written = self.lines.popleft(), 0
        while self.lines and len(block) + len(self.lines[0]) <= select.PIPE_BUF:
            block += self.lines.popleft()
        patience = 0 if self.failure else READER_MS
        try:
            while written < len(block):
                wait_for_reader(patience)
                written += os.write(1, block[written : written + select.PIPE_BUF])
                patience = WITHIN_LINE_MS  # or the line would be cut off
        finally:
            start = block.rfind(b"\n", 0, written) + 1
            if rest := block[start:]:  # a line that was cut off comes again, on a line of its own
                self.lines.appendleft(b"\n" + rest if written > start else rest)


def wait_for_reader(milliseconds):
    """Return when standard output takes PIPE_BUF bytes without waiting; raise an OSError if it does not in time."""
    output = select.poll()
    output.register(1, select.POLLOUT)
    if not output.poll(milliseconds):
        raise BlockingIOError("nobody reads what is written")


def without_secrets(text):
    """Cut the query strings of URLs, and what gunicorn quotes of a request that it cannot read."""
    if text.startswith("Invalid request from "):
        text = re.split("['\"]", text, maxsplit=1)[0]
    return re.sub(r"\?\S+", "?...", text) if "?" in text else text


def shortened(value):
    """Cut the middle out of a long text."""
    cut = len(value) - MAX_TEXT if isinstance(value, str) else 0
    return f"{value[: MAX_TEXT // 2]} ... {cut} characters ... {value[-MAX_TEXT // 2 :]}" if cut > 0 else value


def encoded(line):
    try:
        return msgspec.json.encode(line, enc_hook=str)
    except UnicodeEncodeError:  # half a character, as in the name of a file that is not UTF-8
        return json.dumps(line, default=lambda value: msgspec.to_builtins(value, enc_hook=str)).encode()


def logging_config(level, formatter=JSONFormatter):
    """Return the LOGGING of Django and of gunicorn, whose loggers lose their own handlers: no error is mailed."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "fmt": "%(asctime)s %(message)s", "datefmt": "%H:%M:%S"}},
        "handlers": {"console": {"()": Handler, "formatter": "line"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "django": {"handlers": [], "level": level},
            "django.request": {"level": "ERROR"},  # 4xx are in the line of the request
            "django.server": {"handlers": [], "level": "CRITICAL"},  # runserver's own line
            "gunicorn.error": {"handlers": [], "propagate": True},
        },
    }
