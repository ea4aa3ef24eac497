"""`make loadtest` passes on a fresh project, fails when it should, and loads no machine of others by accident."""

import re

import pytest

SHORT = ("USERS=10", "DURATION=4", "P95=1500", "ERRORS=0.01")
SLOW = 'path("", lambda request: __import__("time").sleep(2) or HttpResponse("late"))'
FAILING = 'path("", lambda request: HttpResponse(status=500 if next(count) % 4 == 0 else 200))'


def loadtest(project, *variables, **environment):
    return project.run("make", "loadtest", "ARGS=", *variables, check=False, **environment)


def change_home(project, view):
    urls = project.package / "urls.py"
    text = urls.read_text()
    changed = re.sub(r'path\("", TemplateView.*\)', view, text)
    assert changed != text
    imports = "import itertools\n\nfrom django.http import HttpResponse\n\ncount = itertools.count()\n"
    urls.write_text(changed.replace("from django.conf", f"{imports}from django.conf", 1))


def test_fresh_project_passes(project):
    ran = loadtest(project, *SHORT)

    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.splitlines()[-1] == "PASS"
    pages = dict(re.findall(r"^GET (\S+) +(\d+) +0 ", ran.stdout, re.MULTILINE))
    assert pages.keys() == {"/", "/admin/login/"}
    assert min(map(int, pages.values())) >= 10


def test_slow_page_fails(project, serve):
    change_home(project, SLOW)

    ran = loadtest(project, f"URL={serve(project).url}", *SHORT)

    assert ran.returncode != 0
    assert re.search(r"^FAIL\nGET /: p95 is \d{4,} ms, more than 1500 ms$", ran.stdout, re.MULTILINE), ran.stdout


def test_errors_fail(project, serve):
    change_home(project, FAILING)

    ran = loadtest(project, f"URL={serve(project).url}", *SHORT)

    assert ran.returncode != 0
    failed = r"^FAIL\nGET /: \d+ of \d+ requests failed, the last with status 500$"
    assert re.search(failed, ran.stdout, re.MULTILINE), ran.stdout


def test_broken_scenario_fails(project, serve):
    scenario = project.path / "tests" / "load.py"
    text = scenario.read_text()
    scenario.write_text(
        text.replace('    visitor.get("/")\n', '    visitor.get("/")\n    assert visitor.cookies["x"]\n')
    )
    assert scenario.read_text() != text

    ran = loadtest(project, f"URL={serve(project).url}", *SHORT)

    assert ran.returncode != 0
    assert "visit(): 10 of 10 requests failed, the last with KeyError('x')" in ran.stdout


def test_server_that_does_not_start_fails(project):
    (project.path / "deploy" / "gunicorn.conf.py").write_text("raise SystemExit('no')")

    ran = loadtest(project, *SHORT)

    assert ran.returncode != 0
    assert "loadtest.log says why" in ran.stdout


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
def test_other_machines_are_refused(project, host):
    ran = loadtest(project, f"URL=http://{host}", *SHORT)

    assert ran.returncode != 0
    assert f"http://{host} is not on this machine" in ran.stdout


def test_other_machines_when_allowed(project):
    """The switch lets the test begin: here, against an address that nothing answers on."""
    ran = loadtest(project, "URL=http://0.0.0.0:9", "ALLOW_REMOTE=1", *SHORT)

    assert ran.returncode != 0
    assert "requests failed, the last with ConnectionRefusedError" in ran.stdout


def test_running_server(project, serve):
    server = serve(project)

    assert loadtest(project, f"URL={server.url}", *SHORT).returncode == 0
    assert server.get("/").status_code == 200
