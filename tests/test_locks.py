"""The locked requirements are right for every combination of answers, and scripts/lock.py keeps them so."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from cookiecutter.main import cookiecutter
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
UV = shutil.which(os.environ.get("UV", "uv"))
assert UV, "uv is neither on PATH nor in $UV"
FILES = ("requirements.txt", "requirements-dev.txt")

lock = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "lock.py")))
load = cache(lock.Template)


def render_distinct(root, folder):
    """Render one project for each set of dependencies that one can ask for, in a folder named after its answers."""
    template = load(root)
    pyprojects = template.render(template.read("pyproject.toml"))
    projects = []
    for answers in dict(zip(map(lock.needs, pyprojects), template.answers, strict=True)).values():
        answers = {name: answers[name] for name in template.options}
        output = folder / ",".join(["answers", *(f"{name}={value}" for name, value in answers.items())])
        projects.append(Path(cookiecutter(str(root), no_input=True, output_dir=str(output), extra_context=answers)))
    return projects


def run(*command, **kwargs):
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"} | kwargs.pop("env", {})
    result = subprocess.run(command, capture_output=True, text=True, env=environment, **kwargs)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def locked(project):
    return {name: (project / name).read_text(encoding="utf-8") for name in FILES}


def requirements(text):
    """Return the packages in the text of a lock."""
    return [Requirement(line.removesuffix(" \\")) for line in text.splitlines() if re.match(r"[a-z0-9]", line)]


def versions(text):
    """Return the packages and versions in the text of a lock, rendered or not."""
    return {(requirement.name, str(requirement.specifier)) for requirement in requirements(text)}


def check_lock(project, env=None):
    """Locking again changes nothing, nor does locking from scratch with these versions: nothing unused is in it."""
    before = locked(project)
    run("make", "lock", f"UV={UV}", "ARGS=", cwd=project, env=env or {})

    assert locked(project) == before

    pins = project.parent / "pins.txt"
    shutil.move(project / "requirements-dev.txt", pins)
    (project / "requirements.txt").unlink()
    run("make", "lock", f"UV={UV}", f"ARGS=--constraint {pins}", cwd=project, env=env or {})

    assert locked(project) == before


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    return render_distinct(ROOT, tmp_path_factory.mktemp("projects"))


def test_locking_again_changes_nothing(tmp_path):
    with ThreadPoolExecutor() as pool:
        list(pool.map(check_lock, render_distinct(ROOT, tmp_path)))


def test_direct_dependencies_have_lower_bounds_that_the_lock_satisfies(projects):
    for project in projects:
        run_time, development = lock.needs((project / "pyproject.toml").read_text(encoding="utf-8"))
        for text, wanted in zip(locked(project).values(), (run_time, run_time + development), strict=True):
            pins = {name: specifier.removeprefix("==") for name, specifier in versions(text)}
            for requirement in map(Requirement, wanted):
                assert ">=" in {bound.operator for bound in requirement.specifier}, requirement
                assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_development_runs_what_production_runs(projects):
    for project in projects:
        production, development = (versions(text) for text in locked(project).values())

        assert production < development


def test_every_package_is_hashed_and_comes_from_any_index(projects):
    for text in (text for project in projects for text in locked(project).values()):
        header, *packages = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)

        assert all(line.startswith("#") for line in header.splitlines())
        assert packages
        for package in packages:
            first, *hashes = package.splitlines()
            assert hashes, first
            assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), first
            assert not re.search(r"://|@|--", first), first


def test_every_combination_renders_the_lock_of_its_dependencies(projects):
    template = load(ROOT)
    rendered = [template.render(template.read(name)) for name in ("pyproject.toml", *FILES)]
    locks = {(lock.needs(pyproject), *texts) for pyproject, *texts in zip(*rendered, strict=True)}

    assert len(locks) == len(projects)


def test_every_combination_has_the_same_versions():
    template = load(ROOT)
    found = {}
    for name in FILES:
        for text in set(template.render(template.read(name))):
            pins = requirements(text)
            for pin in pins:
                found.setdefault(pin.name, set()).add(frozenset(p.specifier for p in pins if p.name == pin.name))

    assert {name: each for name, each in found.items() if len(each) > 1} == {}


@pytest.mark.parametrize("file", FILES)
def test_installs_with_uv(projects, tmp_path, file):
    python = tmp_path / "bin" / "python"
    run(UV, "venv", "--python", sys.executable, "--allow-existing", tmp_path)
    run(UV, "pip", "install", "--python", python, "--require-hashes", "--no-build", "-r", projects[0] / file)

    run(UV, "pip", "check", "--python", python)
    run(python, "-c", "import django, psycopg")


def test_installs_with_pip(projects, tmp_path):
    python = tmp_path / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path)
    run(python, "-m", "pip", "install", "--require-hashes", "-r", projects[0] / "requirements.txt")

    run(python, "-m", "pip", "check")
    run(python, "-c", "import django, psycopg")


# scripts/lock.py


@pytest.fixture
def template(tmp_path):
    """Return a copy of this repository in which scripts/lock.py can be run."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "demo", "tests", "benchmarks")
    return shutil.copytree(ROOT, tmp_path / "template", ignore=ignored)


def add_options(template, options, dependencies):
    """Add options to the prompts of a template in place of its own, and each dependency under its condition."""
    prompts = template / "cookiecutter.json"
    texts = {
        name: "" if isinstance(value, bool | list) and not name.startswith("_") else value
        for name, value in json.loads(prompts.read_text(encoding="utf-8")).items()
    }
    prompts.write_text(json.dumps(texts | options), encoding="utf-8")
    pyproject = template / "{{cookiecutter.project_slug}}" / "pyproject.toml"
    lines = "".join(
        f'{{% if {condition} %}}\n    "{dependency}",\n{{% endif %}}\n'
        for dependency, condition in dependencies.items()
    )
    text = pyproject.read_text(encoding="utf-8")
    pyproject.write_text(text.replace("dependencies = [\n", f"dependencies = [\n{lines}", 1), encoding="utf-8")


def contents(template):
    return {path: path.read_text(encoding="utf-8") for path in template.rglob("requirements*.txt")}


def test_script_changes_only_what_it_is_asked_to(template):
    newest = contents(template)
    for path, text in newest.items():
        path.write_text(re.sub(r"^sqlparse==.*", r"sqlparse==0.5.3 \\", text, flags=re.MULTILINE), encoding="utf-8")
    run(sys.executable, template / "scripts" / "lock.py")
    kept = contents(template)
    run(sys.executable, template / "scripts" / "lock.py", "--upgrade-package", "sqlparse")
    upgraded = contents(template)

    assert len(newest) == 4
    for path, text in newest.items():
        assert {name for name, _ in versions(kept[path]) - versions(text)} <= {"sqlparse"}, path
        assert ("sqlparse==0.5.3" in kept[path]) == ("sqlparse" in text)
        assert "sqlparse==0.5.3" not in upgraded[path]


def test_script_guards_what_options_bring_in(template, tmp_path):
    add_options(
        template,
        {"use_a": False, "use_b": False, "use_c": False, "storage": ["disk", "s3", "azure"]},
        {
            "celery>=5.5": "cookiecutter.use_a",
            "python-dateutil>=2.9": 'cookiecutter.use_b or cookiecutter.storage != "disk"',
        },
    )
    run(sys.executable, template / "scripts" / "lock.py")
    projects = render_distinct(template, tmp_path)

    assert len(projects) == 4
    with ThreadPoolExecutor() as pool:
        # Offline: the script has just asked the index for everything.
        list(pool.map(partial(check_lock, env={"UV_OFFLINE": "1"}), projects))


def test_script_says_which_package_it_cannot_guard(template):
    add_options(
        template,
        {"use_a": False, "use_b": False, "use_c": False},
        {"redis>=5": "(cookiecutter.use_a and cookiecutter.use_b) or cookiecutter.use_c"},
    )
    before = contents(template)
    result = subprocess.run([sys.executable, template / "scripts" / "lock.py"], capture_output=True, text=True)

    assert result.returncode == 1
    assert "Nothing was locked" in result.stderr
    assert "redis==" in result.stderr
    assert contents(template) == before
