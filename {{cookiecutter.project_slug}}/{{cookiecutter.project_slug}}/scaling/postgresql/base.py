"""Django's PostgreSQL backend, aware at once of a connection that was closed and of a server that hangs."""

import contextlib
import select
import socket
import time

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from .. import timeouts
{% if cookiecutter.use_replica %}
from ..replicas import notice
{% endif %}
from ..requests import measured


class DatabaseWrapper(base.DatabaseWrapper):
    hung = {}  # aliases whose server does not answer, and when to try it again, by time.monotonic()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(measured)
{% if cookiecutter.use_replica %}
        self.execute_wrappers.append(notice)
{% endif %}

    def get_new_connection(self, conn_params):
        """Connect. For a server that hangs one thread at a time waits, DATABASE_CONNECT long; others fail at once."""
        retry = self.hung.get(self.alias, 0)
        if time.monotonic() < retry:
            raise psycopg.OperationalError("The server did not answer a moment ago and will be tried again soon.")
        if retry:
            self.hung[self.alias] = time.monotonic() + timeouts.DATABASE_CONNECT
        try:
            connection = super().get_new_connection(conn_params)
        except psycopg.errors.ConnectionTimeout:
            self.hung[self.alias] = time.monotonic() + timeouts.DATABASE_CONNECT
            raise
        self.hung.pop(self.alias, None)
        return connection

    def is_usable(self):
        """Tell without a round trip, in 2 µs, whether statements can be sent: is the socket silent, the server alive?

        A closed connection's socket is readable. One with a rare notice in it is, too: to connect anew then costs less
        than to ask, and asking a server that hangs would take for ever.
        """
        try:
            status, descriptor = self.connection.info.transaction_status, self.connection.fileno()
        except (AttributeError, psycopg.OperationalError):  # there is no connection, or it was closed on this side
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        idle = status in (TransactionStatus.IDLE, TransactionStatus.INTRANS)
        return idle and self.alias not in self.hung and not poll.poll(0)

    def probe(self):
        """Connect once more: if that takes too long, the server hangs."""
        with contextlib.suppress(psycopg.Error):
            self.get_new_connection(self.get_connection_params()).close()

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
