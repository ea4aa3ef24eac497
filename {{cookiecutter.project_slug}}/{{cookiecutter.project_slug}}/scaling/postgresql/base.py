"""Django's PostgreSQL backend, aware at once of a connection that was closed and of a server that hangs."""

import select
import sys
import time

from django.db.backends.postgresql import base
from psycopg import OperationalError
from psycopg.errors import ConnectionTimeout
from psycopg.pq import TransactionStatus

from .. import timeouts
from . import server_timeouts

SERVERS = ("{{ cookiecutter.project_slug }}.wsgi", "{{ cookiecutter.project_slug }}.asgi")


class DatabaseWrapper(base.DatabaseWrapper):
    # Until when an alias whose server did not answer is left alone, by the clock of time.monotonic().
    _hung_until = {}

    def get_connection_params(self):
        """Give a process that serves no requests the timeouts of a command, if any are sent to the server."""
        params = super().get_connection_params()
        if "options" in params and not any(module in sys.modules for module in SERVERS):
            params["options"] += " " + server_timeouts(
                timeouts.COMMAND_STATEMENT, timeouts.COMMAND_LOCK, timeouts.COMMAND_IDLE_IN_TRANSACTION
            )
        return params

    def get_new_connection(self, conn_params):
        """Connect, unless another thread waits for a server that hangs or has just waited in vain.

        Raises OperationalError: at once then, after DATABASE_CONNECT seconds where this thread is the one that waits.
        """
        if hung_until := self._hung_until.get(self.alias):
            if time.monotonic() < hung_until:
                raise OperationalError("The server did not answer a moment ago; it is tried again soon.")
            self._leave_alone()
        try:
            connection = super().get_new_connection(conn_params)
        except ConnectionTimeout:
            self._leave_alone()
            raise
        self._hung_until.pop(self.alias, None)
        return connection

    def _leave_alone(self):
        self._hung_until[self.alias] = time.monotonic() + timeouts.DATABASE_CONNECT

    def is_usable(self):
        """Tell whether the connection is between statements and its socket silent, which takes 2 µs and no round trip.

        The socket of a closed connection is readable. So is one with a rare notice of a live server in it; to connect
        anew then is cheaper than to ask, and asking a server that hangs would never end.
        """
        try:
            between = self.connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS)
            return between and not _readable(self.connection.fileno())
        except (AttributeError, OperationalError):  # there is none, or it was closed here
            return False


def _readable(descriptor):
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
