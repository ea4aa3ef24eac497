"""Django's PostgreSQL backend, aware at once of a connection that was closed and of a server that hangs."""

import contextlib
import os
import select
import socket
import threading
import time
from weakref import WeakSet, finalize

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from ... import timeouts
from ...logs.request_log import measured
{% if cookiecutter.use_replica %}
from ..replicas import notice
{% endif %}
from . import session_timeouts

# Seconds in which a server that is well answers on an open connection; if it does not, a new one is tried.
PROMPT = 0.1


class PerThread(threading.local):
    """The databases of a thread. Its connections end with it, and not at some garbage collection later.

    An ASGI server gives each request a thread of its own, and the signal request_finished, at which Django closes
    connections, does not reach those whose reader has left (Django 6.1, asgiref 3.13).
    """

    def __init__(self):
        self.opened = WeakSet()
        self.end = End()
        # Not at the end of the process, where threads may still run.
        finalize(self.end, close, self.opened, os.getpid()).atexit = False
        self.databases = []  # connected or not


class End:
    """What only its thread refers to, so that finalize() notices when that has ended."""


def close(connections, process):
    if process == os.getpid():  # those that a fork inherits are still its parent's
        for connection in connections:
            connection.close()


of_thread = PerThread()


class DatabaseWrapper(base.DatabaseWrapper):
    # A circuit breaker for each server, by its alias, which all threads share.
    retry_at = {}  # connecting took too long: when one thread may try again, by time.monotonic()
    hung = set()  # and open connections are silent as well

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        of_thread.databases.append(self)
        self.execute_wrappers.append(measured)
{% if cookiecutter.use_replica %}
        self.execute_wrappers.append(notice)
{% endif %}

    @property
    def is_pooled(self):
        """Whether a pooler stands in between, for which database() has turned server-side cursors off."""
        return self.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS", False)

    def session_options(self):
        """Return the settings of PostgreSQL that each session begins with."""
        return session_timeouts()

    def get_connection_params(self):
        """Add our options before those of the URL, which win; a pooler takes none of ours."""
        params = super().get_connection_params()
        if not self.is_pooled:
            ours = " ".join(f"-c {name}={value}" for name, value in self.session_options().items())
            params["options"] = f"{ours} {params.get('options', '')}".strip()
        return params

    def get_new_connection(self, conn_params):
        """Connect, or fail at once if that took too long a moment ago."""
        if time.monotonic() < self.retry_at.get(self.alias, 0):
            raise psycopg.OperationalError("Connecting took too long a moment ago and will be tried again soon.")
        return self.connect_or_break(conn_params)

    def connect_or_break(self, conn_params):
        """Connect; if that takes DATABASE_CONNECT, other threads need not wait as long, until one succeeds."""
        if self.alias in self.retry_at:  # this thread tries, the others fail meanwhile
            self.retry_at[self.alias] = time.monotonic() + timeouts.DATABASE_CONNECT
        try:
            connection = super().get_new_connection(conn_params)
        except psycopg.errors.ConnectionTimeout:
            self.retry_at[self.alias] = time.monotonic() + timeouts.DATABASE_CONNECT
            raise
        self.retry_at.pop(self.alias, None)
        self.hung.discard(self.alias)
        of_thread.opened.add(connection)
        return connection

    def close_if_unusable_or_obsolete(self):
        """Let a persistent connection grow older than DATABASE_MAX_AGE while there would be no other."""
        if self.alias in self.retry_at and self.settings_dict["CONN_MAX_AGE"] and self.close_at:
            self.close_at = max(self.close_at, time.monotonic() + timeouts.DATABASE_CONNECT)
        super().close_if_unusable_or_obsolete()

    def is_usable(self):
        """Tell without a round trip whether statements can be sent: the socket is silent, and the server does not hang.

        A closed connection's socket is readable. One with a rare notice in it is, too: to connect anew then costs less
        than to ask, and asking a server that hangs would take for ever.
        """
        try:
            status, descriptor = self.connection.info.transaction_status, self.connection.fileno()
        except (AttributeError, psycopg.OperationalError):  # there is no connection, or it was closed on this side
            return False
        idle = status in (TransactionStatus.IDLE, TransactionStatus.INTRANS)
        return idle and self.alias not in self.hung and not is_readable(descriptor, 0)

    def probe(self):
        """Find out whether the server hangs: connecting takes too long, and this open connection is silent meanwhile.

        Only then: connecting alone may be slow, and one process of the server, or the pooler's queue, may be stuck. The
        connection must belong to nobody else. It is opened here, and replaced by each new one.
        """
        asked = self.is_usable()
        if asked:
            self.connection.pgconn.send_query(b"SELECT 1")
            if self.alias not in self.retry_at and not self.is_silent(PROMPT):
                return
        try:
            connection = self.connect_or_break(self.get_connection_params())
        except psycopg.Error as error:
            if asked and self.is_silent(0):
                self.close()
                if isinstance(error, psycopg.errors.ConnectionTimeout):
                    self.hung.add(self.alias)
        else:
            self.close()
            self.connection = connection

    def is_silent(self, seconds):
        """Tell whether the answer to a query is still missing; a connection that is lost is no silent one."""
        server = self.connection.pgconn
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                while server.is_busy():
                    if not is_readable(server.socket, seconds):
                        return True
                    server.consume_input()
                if server.get_result() is None:
                    break
        return False

    def is_waiting(self):
        """Tell, in any thread, whether a statement has been sent and not been answered."""
        connection = self.connection
        return connection is not None and connection.info.transaction_status == TransactionStatus.ACTIVE

    def end_wait(self):
        """Let a statement that waits in another thread fail at once; return whether there was one."""
        with contextlib.suppress(AttributeError, psycopg.OperationalError, OSError):  # it ended by itself meanwhile
            connection = self.connection
            descriptor = connection.fileno()
            with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as duplicate:  # of a Unix socket, too
                # Before it was duplicated, the number could have gone to another file.
                if self.is_waiting() and connection.fileno() == descriptor:
                    duplicate.shutdown(socket.SHUT_RDWR)
                    return True
        return False


def is_readable(descriptor, seconds):
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
