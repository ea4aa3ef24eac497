"""What the prompt `ci` asks for: files that the services accept, and steps that can be run."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, clean_environment, rendered
from cookiecutter.main import cookiecutter
from test_options import CHOICES

SCHEMAS = {
    "vendor.github-workflows": ".github/workflows/*.yml",
    "vendor.dependabot": ".github/dependabot.yml",
    "vendor.gitlab-ci": ".gitlab-ci.yml",
    "vendor.renovate": "renovate.json",
}

NAMES = {"github": r"GitHub|\.github/|[Dd]ependabot", "gitlab": "GitLab|gitlab|[Rr]enovate"}
FILES = {"github": {".github"}, "gitlab": {".gitlab-ci.yml", "renovate.json"}, "none": set()}

# What is not on every machine that runs these tests: a list of vulnerabilities, the newest template, Docker.
NOT_RUN = ("make audit", "make update CHECK=1", "docker build .")

# Commands that the services have, here in the place of the real ones: they say how they are called.
GH = '#!/bin/sh\necho gh "$@"\n'


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """The paths of projects for each service and each kind of deployment."""
    folder, paths = tmp_path_factory.mktemp("ci"), {}
    for ci, deployment in itertools.product(CHOICES["ci"], CHOICES["deployment"]):
        answers = {"ci": ci, "deployment": deployment}
        output = folder / f"{ci}-{deployment}"
        paths[ci, deployment] = Path(cookiecutter(str(ROOT), no_input=True, extra_context=answers, output_dir=output))
    return paths


def scripts(path, ci):
    """Return the commands of each job of a project, by its file and name."""
    if ci == "gitlab":
        content = yaml.safe_load((path / ".gitlab-ci.yml").read_text())
        jobs = {name: job for name, job in content.items() if isinstance(job, dict) and "script" in job}
        return {(".gitlab-ci.yml", name): job["script"] for name, job in jobs.items()}
    return {
        (file.name, name): [step["run"] for step in job["steps"] if "run" in step]
        for file in (path / ".github" / "workflows").iterdir()
        for name, job in yaml.safe_load(file.read_text())["jobs"].items()
    }


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schema(projects, schema):
    files = [file for path in [ROOT, *projects.values()] for file in path.glob(SCHEMAS[schema])]
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", schema]
    transform = ["--data-transform", "gitlab-ci"] if schema == "vendor.gitlab-ci" else []
    ran = subprocess.run([*command, *transform, *files], capture_output=True, text=True)

    assert len(files) >= len(CHOICES["deployment"])
    assert ran.returncode == 0, ran.stdout


def test_workflows_are_safe(projects):
    """Actions are pinned by hash, no job may do more than it has to, nothing is put into a shell by the service."""
    files = [path / ".github" for (ci, _), path in projects.items() if ci == "github"]
    zizmor = [Path(sys.executable).with_name("zizmor"), "--offline", "--persona=auditor", "--min-severity=low"]
    ran = subprocess.run([*zizmor, ROOT / ".github", *files], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout


def test_every_job_ends(projects):
    files = [*(ROOT / ".github" / "workflows").iterdir(), *projects["github", "docker"].glob(".github/workflows/*")]
    jobs = [job for file in files for job in yaml.safe_load(file.read_text())["jobs"].values()]

    assert all(job["timeout-minutes"] <= 90 for job in jobs)


def test_actions_are_those_of_the_template(projects):
    """Dependabot raises the template's own; the project's follow."""

    def used(folder):
        texts = [file.read_text() for file in (folder / ".github" / "workflows").iterdir()]
        return set(re.findall(r"uses: (\S+@[0-9a-f]{40} # v[\d.]+)$", "\n".join(texts), re.MULTILINE))

    assert used(ROOT) == used(projects["github", "docker"]) != set()


def test_only_the_files_of_the_service(projects):
    for (ci, deployment), path in projects.items():
        assert {name for names in FILES.values() for name in names if (path / name).exists()} == FILES[ci]
        images = "docker" in (path / ".github" / "dependabot.yml").read_text() if ci == "github" else None
        assert images in (None, deployment != "server")


def test_no_trace_of_another_service(projects):
    for (ci, _), path in projects.items():
        texts = "\n".join(text for file, text in rendered(path).items() if file != ".cruft.json")

        assert [name for name, word in NAMES.items() if name != ci and re.search(word, texts)] == []


def test_services_run_the_same(projects):
    """Apart from what only one of them needs."""

    def commands(ci, deployment):
        lines = "\n".join(line for script in scripts(projects[ci, deployment], ci).values() for line in script)
        return sorted(re.findall("^(?:make|docker) .*", lines, re.MULTILINE))

    for deployment in CHOICES["deployment"]:
        assert commands("github", deployment) == commands("gitlab", deployment) != []


@pytest.fixture(scope="module")
def pushed(default_project, tmp_path_factory):
    """A project whose origin is a bare repository, as the services find it, and a folder of commands for PATH."""
    folder = tmp_path_factory.mktemp("pushed")
    project = default_project.copy(folder)
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "--quiet", "--message=First"],
        ["init", "--quiet", "--bare", folder / "origin"],
        ["remote", "add", "origin", folder / "origin"],
        ["push", "--quiet", "origin", "main"],
    ):
        project.run("git", *command)
    (folder / "bin").mkdir()
    (folder / "bin" / "gh").write_text(GH)
    (folder / "bin" / "gh").chmod(0o755)
    return project, folder


def test_steps_run(pushed, default_project):
    """Those of the workflows, in a shell as the service starts it; of the tests only the home page's."""
    project, folder = pushed
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environment = clean_environment(PATH=path, PYTEST_ADDOPTS="-k home", HOME=str(folder), CI="true")
    environment |= {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or Path("~/.cache/uv").expanduser()}
    said = ""
    for (file, _), commands in scripts(default_project.path, "github").items():
        for command in commands:
            if command in NOT_RUN:
                command = f"make --dry-run {command.removeprefix('make ')}" if command.startswith("make") else "true"
            if file == "updates.yml" and "git diff" in command:
                with (project.path / "requirements.txt").open("a") as lock:  # as if there were a newer package
                    lock.write("# newer\n")
            shell = ["bash", "-e", "-o", "pipefail", "-c", command]
            ran = subprocess.run(shell, cwd=project.path, env=environment, capture_output=True, text=True)
            said += ran.stdout
            assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"

    assert "TOTAL" in said  # of the lines that the tests ran
    assert "gh pr create --fill --head packages" in said
    assert "gh workflow run ci.yml --ref packages" in said
    branch = project.run("git", "-C", folder / "origin", "log", "--format=%s", "packages").stdout.splitlines()
    assert branch == ["Newer packages", "First"]
