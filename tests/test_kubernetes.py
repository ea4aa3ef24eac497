"""With `deployment=kubernetes`: the API takes every manifest, and what they say is what the application does."""

import ast
import getpass
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import requests
import yaml
from conftest import ROOT, free_port, needs
from cookiecutter.main import cookiecutter
from servers import listens, wait_until

OPTIONS = {"use_redis": [False, True], "use_celery": [False, True], "media_storage": ["filesystem", "s3"]}
ALL = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]

# One pod's, which the API's validation needs nothing of the cluster for: that of the profile `restricted`
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

KUBECTL = """#!/bin/sh
echo "$*" >> {log}
case "$*" in {fails}) exit 1;; get*) echo Complete;; esac
"""


class Manifests:
    """A rendered project and the objects that `kubectl apply -k` makes of it, before names and images are filled in."""

    def __init__(self, folder, **answers):
        answers = {"deployment": "kubernetes"} | answers
        self.path = Path(cookiecutter(str(ROOT), no_input=True, extra_context=answers, output_dir=folder))
        self.folder = self.path / "deploy" / "kubernetes"
        self.slug = self.path.name
        self.objects = [found for kustomization in (".", "prepare") for found in self.built(kustomization)]

    def built(self, folder):
        """Yield the objects of the files that a kustomization names."""
        for name in self.kustomization(folder)["resources"]:
            yield from yaml.safe_load_all((self.folder / folder / name).read_text())

    def kustomization(self, folder):
        return yaml.safe_load((self.folder / folder / "kustomization.yaml").read_text())

    def of_kind(self, *kinds):
        return {found["metadata"]["name"]: found for found in self.objects if found["kind"] in kinds}

    def pods(self):
        """Return the metadata and the specs of pods, by the names of what makes them."""
        pods = {}
        for name, found in self.of_kind("Deployment", "Job", "CronJob").items():
            spec = found["spec"]
            pods[name] = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
        return pods

    def containers(self):
        for name, pod in self.pods().items():
            for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
                yield name, pod["spec"], container

    def timeouts(self):
        table = {}
        exec((self.path / self.slug / "scaling" / "timeouts.py").read_text(), table)
        return table


@pytest.fixture(scope="module", params=ALL, ids=lambda answers: "-".join(map(str, answers.values())))
def manifests(request, tmp_path_factory):
    return Manifests(tmp_path_factory.mktemp("manifests"), **request.param)


@pytest.fixture(scope="module")
def with_celery(tmp_path_factory):
    return Manifests(tmp_path_factory.mktemp("celery"), use_celery=True)


def validate(manifests):
    for found in manifests.objects:
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_schema(manifests):
    """Those of the API's latest version; a name that it does not know is an error."""
    validate(manifests)


@pytest.mark.parametrize("slug", ["a", "a" * 40, "a_b"])
def test_schema_with_other_names(tmp_path, slug):
    found = Manifests(tmp_path, project_slug=slug, use_celery=True)

    validate(found)
    (namespace,) = found.of_kind("Namespace")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", namespace)
    assert {found.kustomization(folder)["namespace"] for folder in (".", "prepare")} == {namespace}


def test_hook_for_yaml_takes_them(manifests):
    """Files of several objects, too: the command of the project's hook, with this environment's programs."""
    hooks = yaml.safe_load((manifests.path / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (entry,) = [hook["entry"] for hook in hooks if hook["id"] == "check-yaml"]
    program, *options = entry.split()
    program = Path(sys.executable).with_name(Path(program).name)
    checked = subprocess.run([program, *options, *manifests.folder.rglob("*.yaml")], capture_output=True, text=True)

    assert checked.stdout == ""


def test_kustomizations_name_the_files_that_there_are(manifests):
    for folder in (".", "prepare", "image"):
        kustomization = manifests.kustomization(folder)
        generated = [
            file.rpartition("=")[2] for made in kustomization.get("configMapGenerator", []) for file in made["files"]
        ]
        named = {*kustomization.get("resources", []), *generated, "kustomization.yaml"}
        there = {file.name for file in (manifests.folder / folder).iterdir() if file.is_file()}
        assert there - {"release.sh"} == named
        for component in kustomization.get("components", []):
            assert (manifests.folder / folder / component / "kustomization.yaml").is_file()


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kubectl_builds_them(with_celery):
    """With the one image of the release in all of the site's containers."""
    for folder in (".", "prepare"):
        command = ["kubectl", "kustomize", with_celery.folder / folder]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        built = [found for found in yaml.safe_load_all(text) if found["kind"] != "ConfigMap"]
        assert len(built) == len(list(with_celery.built(folder)))
        images = set(re.findall(r"image: (\S+)", text)) - {"nginx:1.30.5"}
        assert images == {"registry.example.com/my_project:v1.0.0"}


def test_pods_can_do_little_harm(manifests):
    for name, pod, container in manifests.containers():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == RESTRICTED
        assert {"cpu", "memory"} == {*container["resources"]["requests"]}
        assert "memory" in container["resources"]["limits"]
    assert manifests.of_kind("Namespace")[manifests.slug.replace("_", "-")]["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }


def test_names_lead_to_what_is_there(manifests):
    """Selectors, ports, claims, config maps, backends and targets."""
    pods = manifests.pods()
    ports = {
        (name, port["name"]) for name, _, container in manifests.containers() for port in container.get("ports", [])
    }
    for name, found in manifests.of_kind("Deployment").items():
        assert pods[name]["metadata"]["labels"]["app"] == found["spec"]["selector"]["matchLabels"]["app"] == name
    for name, found in manifests.of_kind("Service").items():
        assert found["spec"]["selector"] == {"app": name}
        assert all((name, port["targetPort"]) in ports for port in found["spec"]["ports"])
    for name, found in manifests.of_kind("PodDisruptionBudget").items():
        assert found["spec"]["selector"]["matchLabels"] == {"app": name}
        assert name in pods
    for name, pod in pods.items():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys(), name
        for spread in pod["spec"].get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"] == {"app": name}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods.values()
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == manifests.of_kind("PersistentVolumeClaim").keys()
    (ingress,) = manifests.of_kind("Ingress").values()
    backends = [path["backend"]["service"]["name"] for path in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert {*backends} == manifests.of_kind("Service").keys()
    (scaler,) = manifests.of_kind("HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"]["name"] in manifests.of_kind("Deployment")
    allowed = manifests.of_kind("NetworkPolicy")["http"]["spec"]["podSelector"]["matchExpressions"][0]["values"]
    assert {*allowed} == manifests.of_kind("Service").keys()


def test_ends_nest_with_the_timeouts(with_celery):
    """Whoever is further out waits longer."""
    table, pods = with_celery.timeouts(), with_celery.pods()
    (web,) = pods["web"]["spec"]["containers"]
    before = int(web["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pods["web"]["spec"]["terminationGracePeriodSeconds"] > before + table["DRAIN"] + table["GRACEFUL"]
    assert web["readinessProbe"]["timeoutSeconds"] > table["READY"]
    start = ast.literal_eval(
        re.search(r"^START = (\d+)", (with_celery.path / "deploy" / "web.py").read_text(), re.MULTILINE)[1]
    )
    assert web["startupProbe"]["periodSeconds"] * web["startupProbe"]["failureThreshold"] > start
    for name, pod in pods.items():
        if name.startswith("worker-"):
            assert pod["spec"]["terminationGracePeriodSeconds"] > table["TASK_SHUTDOWN"]
    (ingress,) = with_celery.of_kind("Ingress").values()
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.org/proxy-read-timeout"] == f"{table['PROXY']}s"
    base = (with_celery.path / "my_project" / "settings" / "base.py").read_text()
    assert f"MAX_BODY_SIZE = {annotations['nginx.org/client-max-body-size'].removesuffix('m')} * 1024 * 1024" in base


def test_headers_of_a_response_fit_the_ingress(with_celery, tmp_path):
    """As they fit nginx.conf, for which test_public.py asks; nginx refuses sizes that do not go together."""
    (ingress,) = with_celery.of_kind("Ingress").values()
    names = ("proxy_buffers", "proxy_buffer_size")
    found = {name: ingress["metadata"]["annotations"][f"nginx.org/{name.replace('_', '-')}"] for name in names}
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"events {{}} http {{ {' '.join(f'{name} {value};' for name, value in found.items())} }}")

    subprocess.run([needs("nginx", "nginx-light"), "-t", "-c", conf], check=True)
    of_servers = (with_celery.path / "deploy" / "nginx.conf").read_text()
    assert f"proxy_buffer_size {found['proxy_buffer_size']};" in of_servers


def test_every_queue_has_a_worker_that_is_asked_whether_it_lives(with_celery):
    text = (with_celery.path / "my_project" / "settings" / "tasks.py").read_text()
    queues = ast.literal_eval(re.search(r"for name in (\(.*?\))\]", text)[1])

    found = {}
    for name, _, container in with_celery.containers():
        if name.startswith("worker-"):
            arguments = dict(part.split("=", 1) for part in container["command"] if "=" in part)
            queue = arguments["--queues"]
            found[name] = queue
            assert arguments["--hostname"] == f"{queue}@%h"
            for probe in ("startupProbe", "livenessProbe"):
                program, file, asked = container[probe]["exec"]["command"]
                assert (program, asked) == ("python", queue)
                assert (with_celery.path / file).is_file()
    assert found == {f"worker-{queue}": queue for queue in queues}


def test_no_request_is_lost_while_pods_are_replaced(manifests):
    """One starts before one goes; but for beat, of which one is enough."""
    for name, found in manifests.of_kind("Deployment").items():
        strategy = found["spec"]["strategy"]
        if name == "beat":
            assert strategy == {"type": "Recreate"}
        else:
            assert strategy["rollingUpdate"]["maxUnavailable"] == 0


class Kubectl:
    """A program kubectl that notes what it is told, and fails at some of it."""

    def __init__(self, folder, fails="''"):
        self.log, self.program = folder / "log", folder / "kubectl"
        self.program.write_text(KUBECTL.format(log=self.log, fails=fails))
        self.program.chmod(0o755)

    def release(self, manifests):
        environment = os.environ | {"PATH": f"{self.program.parent}:{os.environ['PATH']}"}
        ran = subprocess.run(["sh", manifests.folder / "release.sh"], env=environment, check=False)
        told = [line.split(" --namespace")[0] for line in self.log.read_text().splitlines()]
        return ran.returncode, told


def test_release_prepares_before_it_replaces(with_celery, tmp_path):
    status, told = Kubectl(tmp_path).release(with_celery)

    assert status == 0
    assert told == [
        "apply -f prepare/namespace.yaml",
        "delete job migrate",
        "apply -k prepare",
        "get job migrate",
        "logs job/migrate",
        "wait job/migrate",
        "apply -k . --selector tier=tasks",
        "rollout status deployment",
        "apply -k .",
        "rollout status deployment",
    ]


def test_release_ends_with_a_migration_that_fails(with_celery, tmp_path):
    status, told = Kubectl(tmp_path, "wait*").release(with_celery)

    assert status == 1
    assert told[-1] == "wait job/migrate"


@pytest.mark.parametrize("media_storage", ["filesystem", "s3"])
def test_files(tmp_path, media_storage):
    """What the Deployment files serves, asked of a real nginx."""
    nginx = needs("nginx", "nginx-light")
    port = free_port()
    text = (Manifests(tmp_path, media_storage=media_storage).folder / "files.conf").read_text()
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
    text = re.sub(r" /(srv|tmp)/", f" {tmp_path}/", text)
    (tmp_path / "nginx.conf").write_text(f"user {getpass.getuser()};\n{text}")
    for file in ("static/site.0123456789ab.css", "static/robots.txt", "media/a.png", "media/a.html"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x")
    process = subprocess.Popen([nginx, "-c", tmp_path / "nginx.conf", "-g", "daemon off;"])
    try:
        wait_until(lambda: listens(port))
        got = {path: requests.get(f"http://127.0.0.1:{port}{path}", timeout=5) for path in PATHS}
    finally:
        process.terminate()
        process.wait(10)
    assert "immutable" in got["/static/site.0123456789ab.css"].headers["Cache-Control"]
    assert got["/static/robots.txt"].headers["Cache-Control"] == "max-age=60, public"
    assert got["/"].status_code == 404
    with_media = media_storage == "filesystem"
    assert {got["/media/a.png"].status_code, got["/media/a.html"].status_code} == {200 if with_media else 404}
    if with_media:
        assert got["/media/a.png"].headers["Content-Disposition"] == "inline"
        assert got["/media/a.html"].headers["Content-Disposition"] == "attachment"
        assert "sandbox" in got["/media/a.html"].headers["Content-Security-Policy"]


PATHS = ["/", "/static/site.0123456789ab.css", "/static/robots.txt", "/media/a.png", "/media/a.html"]


def test_config_of_the_example_fits(with_celery):
    """The keys that deploy.md speaks of are those of the config."""
    example = json.loads((with_celery.path / "config.example.json").read_text())
    text = (with_celery.path / "docs" / "deploy.md").read_text()

    assert {key for key in re.findall(r"`([A-Z][A-Z_]+)`", text) if key in example} >= {
        "ALLOWED_HOSTS",
        "HOSTS",
        "TRUSTED_PROXIES",
    }
