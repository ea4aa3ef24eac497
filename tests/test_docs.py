"""The figures in the documentation and in nginx.conf are those of the code."""

import json
import re

# Prints what docs and nginx.conf repeat.
FIGURES = """
import json
from my_project.scaling import timeouts
from my_project.settings import base
figures = {name: value for name, value in vars(timeouts).items() if name.isupper()}
print(json.dumps(figures | {"MAX_BODY_SIZE": base.MAX_BODY_SIZE}))
"""


def figures(project):
    return json.loads(project.run(project.python, "-c", FIGURES).stdout)


def documented(project):
    """Return the timeouts in the table of docs/operations.md."""
    text = (project.path / "docs" / "operations.md").read_text()
    return {name: float(seconds) for name, seconds in re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)}


def timeouts(project):
    """Return those of the code."""
    return {name: value for name, value in figures(project).items() if name != "MAX_BODY_SIZE"}


def test_timeouts_in_operations(default_project):
    assert documented(default_project) == timeouts(default_project)


def test_role_in_operations_has_the_timeouts_of_requests(default_project):
    text = (default_project.path / "docs" / "operations.md").read_text()

    table = figures(default_project)
    assert dict(re.findall(r"SET (\w+) = '(\d+)s'", text)) == {
        "statement_timeout": str(table["DATABASE_STATEMENT"]),
        "lock_timeout": str(table["DATABASE_LOCK"]),
        "idle_in_transaction_session_timeout": str(table["DATABASE_IDLE_IN_TRANSACTION"]),
    }


def test_nginx(default_project):
    text = (default_project.path / "deploy" / "nginx.conf").read_text()

    table = figures(default_project)
    assert f"proxy_read_timeout {table['PROXY']}s;" in text
    assert f"proxy_connect_timeout {table['DATABASE_CONNECT']}s;" in text
    assert re.findall(r"^    keepalive_timeout (\d+)s;", text, re.MULTILINE) == [str(table["KEEPALIVE"])]
    assert f"client_header_timeout {table['CLIENT']}s;" in text
    assert f"client_body_timeout {table['CLIENT']}s;" in text
    assert f"client_max_body_size {table['MAX_BODY_SIZE'] // 1024**2}m;" in text
