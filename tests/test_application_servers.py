"""The web server as shipped does right for Django whatever application_servers.py asks of one and asks quickly.

What it does of signals and of workers that end is in test_server.py, and so is what it needs nginx for.
"""

import pytest
from application_servers import BEHIND_PROXY, CONFIG, SERVERS, SHARED, Server


@pytest.fixture(scope="module")
def server(default_project, database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed")
    environment = default_project.configure(folder, **CONFIG, DATABASE_URL=database_url)
    default_project.manage("migrate", **environment)
    server = Server(SERVERS["gunicorn"], default_project, folder, environment, default_project.python.parent)
    yield server.start()
    server.stop()


@pytest.mark.parametrize(
    "probe", [probe for probe in SHARED if probe not in BEHIND_PROXY], ids=lambda probe: probe.__doc__
)
def test_gunicorn(server, probe):
    passed, seen = probe(server)

    assert passed, seen
