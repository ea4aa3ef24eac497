"""What the deployment files name is what the application reads, and they leave out nothing that it needs."""

import ast
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from cookiecutter.main import cookiecutter
from test_options import CHOICES

# Prompts that change what has to run, or what has to be in the config
PROMPTS = ("use_redis", "use_celery", "media_storage")

# Names in capitals that others than the application read
OF_OTHERS = {
    *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHON_CPU_COUNT", "LANG", "PATH", "RES_OPTIONS"),
    *("NET_BIND_SERVICE", "POSTGRES_PASSWORD_FILE", "RELEASE", "CMD", "SIGHUP", "SIGTERM", "JSON", "HTTPS", "TLS"),
    "URL_OF_AN_EMPTY_DATABASE",
}

# Prints how the parsers of Django's own commands take each of the commands in a JSON list.
PARSE = """
import json, sys
from django.core.management import CommandError, get_commands, load_command_class
import django
django.setup()
for name, *arguments in json.loads(sys.argv[1]):
    try:
        load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(arguments)
    except (CommandError, KeyError) as error:
        print(f"{name} {arguments}: {error!r}")
"""


COMBINATIONS = [*itertools.product(CHOICES["deployment"], *(CHOICES[name] for name in PROMPTS))]


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Each combination of the prompts as a Deployed."""
    found = {}
    for values in COMBINATIONS:
        answers = dict(zip(("deployment", *PROMPTS), values, strict=True))
        folder = tmp_path_factory.mktemp("deployed")
        path = cookiecutter(str(ROOT), no_input=True, extra_context=answers, output_dir=folder)
        found[values] = Deployed(Path(path), answers)
    return found


@pytest.fixture(params=COMBINATIONS, ids=lambda values: "-".join(map(str, values)))
def deployed(request, projects):
    return projects[request.param]


def code_in(text):
    """Return the lines of code in Markdown, in blocks and in sentences."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", sentences))])


class Process:
    """A command that a deployment file has run, and what it says about it."""

    def __init__(self, argv, uid=None, grace=None, environment=()):
        self.argv = [part.replace("$$", "$").replace("%%", "%") for part in argv]
        self.uid, self.grace, self.environment = uid, grace, set(environment)

    def __repr__(self):
        return shlex.join(self.argv)

    def of(self, program):
        """Return the arguments of a program of the site, None if the command runs another one."""
        names = [part.rpartition("/")[2] for part in self.argv]
        return self.argv[names.index(program) + 1 :] if program in names else None


class Deployed:
    """A rendered project, and what runs where it is deployed."""

    def __init__(self, path, answers):
        self.path, self.answers, self.slug = path, answers, path.name
        self.package = path / path.name
        self.files = {
            str(file.relative_to(path)): file.read_text()
            for file in [path / "Dockerfile", path / "compose.yaml", path / "docs/deploy.md", *path.glob("deploy/**/*")]
            if file.is_file()
        }
        found = ast.parse((self.package / "scaling" / "timeouts.py").read_text()).body
        values = [node for node in found if isinstance(node, ast.Assign)]
        self.timeouts = {node.targets[0].id: ast.literal_eval(node.value) for node in values}
        lines = re.findall(r"^ENV (.*)", self.files.get("Dockerfile", "").replace("\\\n", ""), re.MULTILINE)
        self.image = dict(re.findall(r"(\w+)=(\S+)", " ".join(lines)))
        readers = {"docker": self.of_compose, "kubernetes": self.of_kubernetes, "server": self.of_systemd}
        self.processes = [*self.of_image(), *readers[answers["deployment"]]()]

    def of_image(self):
        text = self.files.get("Dockerfile", "")
        for line in re.findall(r"^(?:HEALTHCHECK .*?)?CMD (\[.*\])$", text, re.MULTILINE):
            yield Process(json.loads(line), environment=self.image)

    def of_compose(self):
        services = yaml.safe_load(self.files["compose.yaml"])["services"]
        for service in services.values():
            uid = service.get("user", "").partition(":")[0]
            seconds = int(service.get("stop_grace_period", "10s").removesuffix("s"))
            if service["image"].startswith(f"{self.slug}:"):
                yield Process(service["command"], uid, seconds, service.get("environment", ()))
            if check := service.get("healthcheck"):
                yield Process(check["test"][1:], uid)

    def of_kubernetes(self):
        for pod in self.pods():
            uid, seconds = str(pod["securityContext"]["runAsUser"]), pod["terminationGracePeriodSeconds"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
                command = [*container.get("command", []), *container.get("args", [])]
                if container["image"] == self.slug:
                    own = command or next(iter(self.of_image())).argv
                    environment = [entry["name"] for entry in container.get("env", [])]
                    yield Process(own, uid, seconds - int(hook[1]), environment)
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    if ask := container.get(probe, {}).get("exec"):
                        yield Process(ask["command"], uid)

    def pods(self):
        """Yield the specifications of all pods."""
        for name, text in self.files.items():
            for document in yaml.safe_load_all(text) if name.endswith(".yaml") else ():
                spec = document.get("spec", {}) if document else {}
                spec = spec.get("jobTemplate", {}).get("spec", spec)
                if pod := spec.get("template", {}).get("spec"):
                    yield pod

    def of_systemd(self):
        environment = re.findall(r'^Environment="?(\w+)=', "\n".join(self.files.values()), re.MULTILINE)
        for name, text in self.files.items():
            if name.endswith(".service"):
                seconds = re.search(r"^TimeoutStopSec=(\d+)", text, re.MULTILINE)
                for line in re.findall(r"^ExecStart=(.*)", text, re.MULTILINE):
                    yield Process(shlex.split(line), None, int(seconds[1]) if seconds else None, environment)

    def running(self, program):
        """Yield the processes of a program, with their arguments."""
        for process in self.processes:
            if (arguments := process.of(program)) is not None:
                yield process, arguments

    def queues(self):
        """Return the queues that settings/tasks.py declares."""
        file = self.package / "settings" / "tasks.py"
        lines = re.findall(r"^CELERY_TASK_QUEUES = (.*)", file.read_text(), re.MULTILINE) if file.exists() else []
        return set(re.findall(r'"(\w+)"', "".join(lines)))

    def commands(self):
        """Yield the commands of manage.py that the files name, shell code and documentation included."""
        for _, arguments in self.running("manage.py"):
            yield arguments
        for name, text in self.files.items():
            code = code_in(text) if name.endswith(".md") else re.sub(r"(^|\s)#.*", "", text)
            for line in re.findall(r"manage\.py (\w[^&|>)\n]*)", code.replace("\\\n", " ")):
                yield shlex.split(line)
            for arguments in re.findall(r'manage\(\w+, ("[^)]*")\)', text):  # of a script in Python
                yield json.loads(f"[{arguments}]")


def test_commands_of_manage_py_exist(projects, default_project):
    """Those of the project by their names, Django's with their options."""
    commands, django = set(), set()
    for deployed in projects.values():
        own = {file.stem for file in deployed.package.rglob("management/commands/*.py")} - {"migrate"} | {"config"}
        named = {tuple(command) for command in deployed.commands()}
        assert {"migrate", "config"} <= {command[0] for command in named}, deployed.answers
        commands |= named
        django |= {command for command in named if command[0] not in own}
    environment = {"DJANGO_SETTINGS_MODULE": "my_project.settings.base"}
    said = default_project.run(default_project.python, "-c", PARSE, json.dumps([*django]), **environment)

    assert said.stdout == ""


def test_files_of_commands_exist(deployed):
    for process in deployed.processes:
        for part in process.argv:
            if part.endswith(".py"):
                inside = re.sub(rf"^/srv/{deployed.slug}/(current/)?", "", part)
                assert (deployed.path / inside).is_file(), process


def test_web_listens_where_its_proxy_asks(deployed):
    """The addresses of --bind, of systemd's socket, and those in nginx.conf, in probes and in ports."""
    binds = {arguments[arguments.index("--bind") + 1] for _, arguments in deployed.running("web.py") if arguments}
    binds |= {
        f"unix:{path}" for path in re.findall(r"^ListenStream=(.+)", "\n".join(deployed.files.values()), re.MULTILINE)
    }
    if deployed.answers["deployment"] == "kubernetes":
        ports = {
            port["name"]: port["containerPort"]
            for pod in deployed.pods()
            for c in pod["containers"]
            if c["image"] == deployed.slug
            for port in c.get("ports", [])
        }
        probes = {
            probe["httpGet"]["port"]
            for pod in deployed.pods()
            for c in pod["containers"]
            for name, probe in c.items()
            if name.endswith("Probe") and "httpGet" in probe
        }
        assert binds == {f"0.0.0.0:{port}" for port in ports.values()}
        assert probes == ports.keys()
        return
    asked = set(re.findall(r"server (unix:[^\s;]+)", deployed.files["deploy/nginx.conf"]))
    asked_for = {arguments[0] for _, arguments in deployed.running("ready.py")}

    assert asked == {bind for bind in binds if bind.startswith("unix:")}
    assert {address.replace("127.0.0.1", "0.0.0.0") for address in asked_for} <= binds
    if deployed.answers["deployment"] == "docker":
        assert {
            f"0.0.0.0:{port}" for port in re.findall(r"^EXPOSE (\d+)", deployed.files["Dockerfile"], re.MULTILINE)
        } <= binds


def test_whoever_stops_has_the_time_that_it_takes(deployed):
    table = deployed.timeouts
    needed = {"web.py": table["DRAIN"] + table["GRACEFUL"], "worker": table.get("TASK_SHUTDOWN"), "migrate": 0}

    for process in deployed.processes:
        for name, seconds in needed.items():
            if name in [part.rpartition("/")[2] for part in process.argv] and process.grace is not None:
                assert process.grace > seconds, process
    if deployed.answers["deployment"] == "docker":
        nginx = yaml.safe_load(deployed.files["compose.yaml"])["services"]["nginx"]
        assert int(nginx["stop_grace_period"].removesuffix("s")) > table["PROXY"]


def test_every_queue_has_a_worker_and_each_is_asked_for_its_life(deployed):
    workers = [arguments for _, arguments in deployed.running("celery") if "worker" in arguments]
    options = [dict(option.split("=", 1) for option in arguments if "=" in option) for arguments in workers]
    queues = {option["--queues"] for option in options}
    beats = [process for process, arguments in deployed.running("celery") if "beat" in arguments]
    asked = {arguments[0] for _, arguments in deployed.running("alive.py")}

    if not deployed.answers["use_celery"]:
        assert not workers + beats
        assert any("clearsessions" in text for text in deployed.files.values())
        return
    assert len(beats) == 1
    if queues == {"%i"}:  # a template of systemd, whose watchdog asks
        enabled = set(re.findall(rf"{deployed.slug}-worker@(\w+)", deployed.files["docs/deploy.md"]))
        enabled |= {
            name
            for names in re.findall(rf"{deployed.slug}-worker@\{{([\w,]+)\}}", deployed.files["docs/deploy.md"])
            for name in names.split(",")
        }
        assert enabled == deployed.queues()
        return
    assert queues == deployed.queues()
    assert {option["--hostname"].removesuffix("@%h") for option in options} | {"beat"} == asked
    assert {*(option.get("--app", deployed.slug) for option in options)} == {deployed.slug}


def test_users(deployed):
    """One user, whose number is that of the image."""
    of_image = set(re.findall(r"^USER (\d+):", deployed.files.get("Dockerfile", ""), re.MULTILINE))
    uids = {process.uid for process in deployed.processes if {*process.argv} & {"python", "celery"} and process.uid}

    assert uids <= of_image
    if deployed.answers["deployment"] == "server":
        users = set(re.findall(r"^(?:User|SocketUser)=(\S+)", "\n".join(deployed.files.values()), re.MULTILINE))
        assert len(users) == 1
        assert users.pop() in deployed.files["docs/deploy.md"]


def test_paths_are_those_of_the_application(deployed):
    """Where the config is, uploaded files, static files and sockets."""
    config = (deployed.package / "config.py").read_text()
    known = set(re.findall(rf'"(/srv/{deployed.slug}[\w/.]*)"', config))
    known |= set(re.findall(r"(?:alias |root |unix:)(/[\w/.]+?)/?[; ]", deployed.files.get("deploy/nginx.conf", "")))
    known |= {path.rpartition("/")[0] for path in known if path.endswith(".sock")}
    dockerfile = deployed.files.get("Dockerfile", "")
    folders = re.findall(r"^RUN install --directory .*?((?: \w+)+)$", dockerfile, re.MULTILINE)
    known |= {f"/srv/{deployed.slug}/{name}" for names in folders for name in names.split()}
    if dockerfile:
        known |= {deployed.image["DJANGO_CONFIG"], str(Path(deployed.image["DJANGO_CONFIG"]).parent)}
    mounted = set()
    if deployed.answers["deployment"] == "docker":
        compose = yaml.safe_load(deployed.files["compose.yaml"])
        for service in compose["services"].values():
            mounted |= {volume.split(":")[1] for volume in service.get("volumes", [])}
            if service["image"].startswith(f"{deployed.slug}:"):
                mounted |= {f"/run/secrets/{name}" for name in service.get("secrets", [])}
    elif deployed.answers["deployment"] == "kubernetes":
        for pod in deployed.pods():
            for container in pod["containers"] + pod.get("initContainers", []):
                mounted |= {m["mountPath"] for m in container["volumeMounts"] if container["image"] == deployed.slug}
    else:
        text = "\n".join(text for name, text in deployed.files.items() if "/systemd/" in name)
        mounted = set(re.findall(r"^(?:ReadWritePaths=-?|ListenStream=)(/\S+)", text, re.MULTILINE))
    ours = {path for path in mounted if path.startswith((f"/srv/{deployed.slug}", "/run/"))} - {"/run/postgresql"}

    assert ours
    assert ours <= known, f"the application knows {sorted(known)}"


def test_names_in_capitals_are_read(deployed):
    """Keys of the config, settings, timeouts and environment variables; whoever misspells one is told here."""
    code = "\n".join(file.read_text() for file in deployed.path.rglob("*.py"))
    known = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", code)) | OF_OTHERS
    for process in deployed.processes:
        assert process.environment <= known, process
    for name, text in deployed.files.items():
        if not name.endswith((".py", ".conf")):
            words = set(re.findall(r"`([A-Z][A-Z0-9_]{3,})`|\b([A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9])\b", text))
            assert {word for pair in words for word in pair if word} <= known, name


def test_required_keys_are_spoken_of(deployed):
    """What `config example` cannot know, docs/deploy.md says to fill in."""
    text = deployed.files["docs/deploy.md"]
    body = next(
        node for node in ast.parse((deployed.package / "config.py").read_text()).body if isinstance(node, ast.ClassDef)
    ).body
    required = {node.target.id for node in body if isinstance(node, ast.AnnAssign) and node.value is None}

    beginnings = tuple(re.findall(r"`([A-Z0-9_]+_)…`", text)) or ("none",)
    silent = [key for key in required if key not in text and not key.startswith(beginnings)]

    assert {"SECRET_KEY", "ALLOWED_HOSTS", "DATABASE_URL"} <= required
    assert "manage.py config example" in text
    assert {*silent} <= {"SECRET_KEY", "ALLOWED_HOSTS"}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["check-jsonschema", "--builtin-schema", "vendor.compose-spec"], "compose.yaml"),
        (["hadolint", "--failure-threshold", "style"], "Dockerfile"),
    ],
)
def test_files_are_valid(projects, command, name):
    files = [deployed.path / name for deployed in projects.values() if name in deployed.files]
    program = Path(sys.executable).with_name(command[0])
    ran = subprocess.run([program, *command[1:], *files], capture_output=True, text=True, check=False)

    assert files
    assert ran.returncode == 0, ran.stdout + ran.stderr
