"""Prometheus gets, through the shipped mapping, what each panel and each alert asks for."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Server, clean_environment, free_port, needs
from cookiecutter.main import cookiecutter
from test_options import OFF, ON

# A page that fails
URLS = """
from django.urls import path
from my_project.urls import urlpatterns as site

urlpatterns = [*site, path("failure/", lambda request: 1 / 0)]
"""

# As they come from replicas' watches and from workers: test_gauges.py of the project, test_outbox.py
OF_OPTIONS = """
replica.lag_seconds:0.4|g|#replica:replica_1
outbox.oldest_seconds:3|g
outbox.errors:0|g
queue.length:4|g|#queue:default
"""

# As node_exporter tells it
DISK = """
node_filesystem_avail_bytes{fstype="ext4",mountpoint="/"} 9e9
node_filesystem_size_bytes{fstype="ext4",mountpoint="/"} 1e10
"""

# For each alert: series that do not raise it, and series that do, in the notation of promtool, a value each minute.
ALERTS = {
    "NoMetrics": ({"threads": "4x60"}, {}),
    "Errors": (
        {'request_seconds_count{status="5xx"}': "0+1x60", 'request_seconds_count{status="2xx"}': "0+200x60"},
        {'request_seconds_count{status="5xx"}': "0+1x60", 'request_seconds_count{status="2xx"}': "0+50x60"},
    ),
    "SlowPages": (
        {'request_seconds_bucket{le="1"}': "0+96x60", 'request_seconds_bucket{le="+Inf"}': "0+100x60"},
        {
            'request_seconds_bucket{le="1"}': "0+90x60",
            'request_seconds_bucket{le="2.5"}': "0+99x60",
            'request_seconds_bucket{le="+Inf"}': "0+100x60",
        },
    ),
    "ThreadsBusy": (
        {"request_seconds_sum": "0+180x60", "threads": "4x60"},
        {"request_seconds_sum": "0+200x60", "threads": "4x60"},
    ),
    "ConnectionsUsed": (
        {"connections_used": "79x60", "connections_accepted": "100x60"},
        {"connections_used": "81x60", "connections_accepted": "100x60"},
    ),
    "ReplicaLag": ({"replica_lag_seconds": "2x60"}, {"replica_lag_seconds": "4x60"}),
    "NoWorkers": ({"outbox_oldest_seconds": "0x60"}, {}),
    "OldestTask": ({"outbox_oldest_seconds": "50x60"}, {"outbox_oldest_seconds": "70x60"}),
    "TaskErrors": ({"outbox_errors": "0x60"}, {"outbox_errors": "1x60"}),
    "QueueGrows": ({"queue_length": "100-1x60"}, {"queue_length": "1+1x60"}),
    "DiskFull": (
        {"node_filesystem_avail_bytes": "16x60", "node_filesystem_size_bytes": "100x60"},
        {"node_filesystem_avail_bytes": "14x60", "node_filesystem_size_bytes": "100x60"},
    ),
}


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory):
    """The folders deploy/monitoring of two projects, without and with all options."""

    def render(name, answers):
        options = {"no_input": True, "extra_context": answers, "output_dir": tmp_path_factory.mktemp(name)}
        return Path(cookiecutter(str(ROOT), **options)) / "deploy" / "monitoring"

    return {"off": render("off", OFF), "on": render("on", ON)}


def rules(folder):
    """Return the alerts of a project, by their names."""
    (group,) = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def queries(folder):
    """Return all that is asked for: what alerts compare with something, and the queries of the panels."""
    panels = json.loads((folder / "dashboard.json").read_text())["panels"]
    asked = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]
    asked += [re.sub(r"absent\((\w+)\)", r"\1", rule["expr"]) for rule in rules(folder).values()]
    return [re.sub(r" [<>] [\d.]+", "", query) for query in asked]


class Exporter(ThreadingHTTPServer):
    """What statsd_exporter does with the mapping of a project, where that program is not on PATH.

    It knows no more of the mapping's language than the mapping uses. Of one datagram of each kind it gave the same 36
    samples as statsd_exporter 0.23.0, built from its source, with which in its place the tests pass, too.
    """

    def __init__(self, mapping):
        super().__init__(("127.0.0.1", free_port()), Handler)
        content = yaml.safe_load(mapping.read_text())
        self.buckets = [*content["defaults"]["histogram_options"]["buckets"], float("inf")]
        self.mappings = content["mappings"]
        self.values = {}
        self.datagrams = socket.socket(type=socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.statsd = self.datagrams.getsockname()[1]
        for work in (self.serve_forever, self.receive):
            threading.Thread(target=work, daemon=True).start()

    def receive(self):
        while True:
            for line in self.datagrams.recv(65_536).decode().splitlines():
                name, value, kind, tags = re.fullmatch(r"([^:]+):([^|]+)\|(\w+)(?:\|#(.+))?", line).groups()
                labels = dict(tag.split(":", 1) for tag in tags.split(",")) if tags else {}
                self.add(self.mapped(name), float(value), kind, labels)

    def mapped(self, name):
        for mapping in self.mappings:
            if found := re.fullmatch(mapping["match"].replace(".", r"\.").replace("*", "([^.]*)"), name):
                return mapping["name"].replace("${1}", found[found.lastindex or 0])
        return name.replace(".", "_")

    def add(self, name, value, kind, labels):
        if kind == "g":
            self.values[self.key(name, labels)] = value
        elif kind == "c":
            self.count(name, labels, value)
        else:
            self.count(f"{name}_sum", labels, value / 1000)
            self.count(f"{name}_count", labels, 1)
            for bound in self.buckets:
                le = f"{bound:g}".replace("inf", "+Inf")
                self.count(f"{name}_bucket", labels | {"le": le}, value / 1000 <= bound)

    def count(self, name, labels, value):
        key = self.key(name, labels)
        self.values[key] = self.values.get(key, 0) + value

    @staticmethod
    def key(name, labels):
        return f"{name}{{{','.join(f'{label}={json.dumps(text)}' for label, text in labels.items())}}}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        text = "".join(f"{key} {value + 0}\n" for key, value in list(self.server.values.items())) + DISK
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def exporters(monitoring, tmp_path_factory):
    """The ports to send to and to read from: of the program if there is one, otherwise of the class above."""
    stand_in = Exporter(monitoring["on"] / "statsd_exporter.yml")
    program = shutil.which("statsd_exporter") or shutil.which("prometheus-statsd-exporter")
    if program is None:
        yield stand_in.statsd, [stand_in.server_port]
        return
    statsd, web = free_port(), free_port()
    options = {
        "statsd.mapping-config": monitoring["on"] / "statsd_exporter.yml",
        "statsd.listen-udp": f"127.0.0.1:{statsd}",
        "statsd.listen-tcp": "",
        "web.listen-address": f"127.0.0.1:{web}",
    }
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    server = Server(command, f"127.0.0.1:{web}", tmp_path_factory.mktemp("exporter") / "log").wait_until_up()
    yield statsd, [web, stand_in.server_port]
    server.stop()


@pytest.fixture(scope="module")
def site(default_project, database_url, exporters, tmp_path_factory):
    """The project on gunicorn, sending its metrics."""
    folder = tmp_path_factory.mktemp("monitored")
    (folder / "monitored_urls.py").write_text(URLS)
    (folder / "monitored.py").write_text('from my_project.settings.deploy import *\nROOT_URLCONF = "monitored_urls"\n')
    values = {"ALLOWED_HOSTS": ["127.0.0.1"], "DATABASE_URL": database_url, "HTTPS": False, "WORKERS": 1}
    environment = default_project.configure(folder, STATSD_URL=f"udp://127.0.0.1:{exporters[0]}", **values) | {
        "DJANGO_SETTINGS_MODULE": "monitored",
        "PYTHONPATH": f"{default_project.path}:{folder}",
    }
    default_project.manage("migrate", **environment)
    default_project.manage("collectstatic", "--no-input", **environment)
    address = f"127.0.0.1:{free_port()}"
    command = [default_project.python, "deploy/web.py", f"--bind={address}"]
    options = {"cwd": default_project.path, "env": clean_environment(**environment)}
    server = Server(command, address, folder / "gunicorn.log", **options).wait_until_up()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def prometheus(monitoring, exporters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    targets = [f"127.0.0.1:{port}" for port in exporters[1]]
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(monitoring["on"] / "alerts.yml")],
        "scrape_configs": [{"job_name": "my_project", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    program = needs("prometheus", "prometheus")
    server = Server([program, *options, f"--web.listen-address={address}"], address, folder / "log").wait_until_up()
    yield server
    server.stop()


@pytest.mark.parametrize("options", ["off", "on"])
def test_alerts(monitoring, tmp_path, options):
    """Each keeps still below its threshold and is raised above; promtool reads the file as Prometheus does."""
    cases = []
    for name in rules(monitoring[options]):
        for is_raised, series in enumerate(ALERTS[name]):
            names = {key: key if key.startswith("node_") else f"my_project_{key}" for key in series}
            inputs = [{"series": names[key], "values": values} for key, values in series.items()]
            asked = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
            expected = {"expr": asked, "eval_time": "50m", "exp_samples": [{"labels": "{}", "value": is_raised}]}
            cases.append({"interval": "1m", "input_series": inputs, "promql_expr_test": [expected]})
    (tmp_path / "test.yml").write_text(
        json.dumps({"rule_files": [str(monitoring[options] / "alerts.yml")], "tests": cases})
    )

    ran = subprocess.run(
        [needs("promtool", "prometheus"), "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert set(ALERTS) >= set(rules(monitoring[options]))


def test_options_have_their_alerts(monitoring):
    assert set(rules(monitoring["on"])) == set(ALERTS)
    assert set(queries(monitoring["off"])) < set(queries(monitoring["on"]))


def test_lag_is_that_of_the_site(monitoring):
    """A replica is behind when it is not read from any more."""
    (timeouts,) = monitoring["on"].parents[1].glob("*/scaling/timeouts.py")
    lag = re.search(r"^REPLICA_LAG = (\d+)", timeouts.read_text(), re.MULTILINE)[1]

    assert rules(monitoring["on"])["ReplicaLag"]["expr"].endswith(f"> {lag}")


def test_every_query_has_an_answer(site, prometheus, exporters, monitoring):
    """A site under load, one exporter, one Prometheus."""
    with socket.socket(type=socket.SOCK_DGRAM) as options:
        missing = queries(monitoring["on"])
        deadline = time.monotonic() + 40
        while missing and time.monotonic() < deadline:
            for path in ("/", "/accounts/login/", "/nowhere/", "/failure/"):
                site.get(path)
            options.sendto(OF_OPTIONS.strip().encode(), ("127.0.0.1", exporters[0]))
            asked = {query: prometheus.get("/api/v1/query", params={"query": query}).json() for query in missing}
            missing = [query for query, answer in asked.items() if not answer["data"]["result"]]
            time.sleep(0.2)

    assert missing == []
