"""For development machines only: a PostgreSQL of the project's own{{ ', a Celery worker' if cookiecutter.use_celery else '' }}, and the pages below /dev/.

settings/development.py, the tests and deploy/serve.py use it; nothing that is deployed does. Its pages are there where
INSTALLED_APPS has it as an app, which is in settings/development.py.
"""

import socket
import sys


def check_address(address):
    """Raise SystemExit if an address such as 127.0.0.1:8000 is none, or another program serves it."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        sys.exit(f"{address} cannot be served: {error.strerror}. Choose another one: ADDRESS=127.0.0.1:8001")
    except (OverflowError, ValueError):
        sys.exit(f"{address} is no address with a port from 1 to 65535. Choose one: ADDRESS=127.0.0.1:8001")
