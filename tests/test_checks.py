"""System checks of the rendered project fail when they should, and say what to change."""

import pytest


def test_timeouts_out_of_order(project):
    file = project.package / "scaling" / "timeouts.py"
    file.write_text(file.read_text().replace("REQUEST = 10 ", "REQUEST = 25 "))

    ran = project.manage("check", check=False)

    assert ran.returncode == 1
    assert "REQUEST (25 s) is not shorter than GRACEFUL (15 s)." in ran.stdout
    assert "Lower REQUEST or raise GRACEFUL" in ran.stdout


@pytest.mark.parametrize(("hosts", "status"), [(2, 0), (20, 1)])
def test_connections_of_all_hosts(default_project, database_url, tmp_path, hosts, status):
    environment = default_project.configure(tmp_path, DATABASE_URL=database_url, WORKERS=2, THREADS=4, HOSTS=hosts)

    ran = default_project.manage(
        "check", "--database", "default", "--fail-level", "WARNING", check=False, **environment
    )

    assert ran.returncode == status, ran.stdout
    if status:
        assert "2 workers x 4 threads x 20 hosts, 40 that workers probe the server on and 5 more need 205" in ran.stdout
        assert "Lower WORKERS, THREADS or HOSTS in the config" in ran.stdout
