"""Pin all that the rendered projects and this repository install; the arguments, such as --upgrade, go on to uv.

One universal resolution of what any combination of answers asks for chooses the versions; without arguments, those that
are pinned stay where they can. From these, the rendered project's own `make lock` makes the files of each combination,
and in the template a package stands under the options that bring it in. Nothing is written unless every combination
renders exactly its own files. Needs make, and uv on PATH or named in $UV.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context

ROOT = Path(__file__).resolve().parent.parent
FILES = ("requirements.txt", "requirements-dev.txt")

# All that a compiled file may hold: no address of an index, no path, nothing without a hash.
LINE = re.compile(r"#[^/@]*|[a-z0-9-]+==[\w.!+]+( ; [\w ()'.<>=!]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")


class Template:
    """A template, and all combinations of the answers to those prompts that are a choice."""

    def __init__(self, root):
        file = root / "cookiecutter.json"
        self.project = root / "{{cookiecutter.project_slug}}"
        self.options = {
            name: [True, False] if isinstance(value, bool) else value
            for name, value in json.loads(file.read_text(encoding="utf-8")).items()
            if isinstance(value, bool | list) and not name.startswith("_")
        }
        contexts = [
            generate_context(file, extra_context=dict(zip(self.options, values, strict=True)))
            for values in itertools.product(*self.options.values())
        ]
        self.answers = [prompt_for_config(context, no_input=True) for context in contexts]
        self.jinja = create_env_with_context(contexts[0])

    def read(self, file):
        """Return the text of one of the project's files, not rendered."""
        return (self.project / file).read_text(encoding="utf-8")

    def render(self, text):
        """Return a text as each combination renders it."""
        page = self.jinja.from_string(text)
        return [page.render(cookiecutter=answers) for answers in self.answers]

    def conditions(self):
        """Return what can be asked of one option, and the numbers of the combinations in which it holds."""
        conditions = []
        for name, values in self.options.items():
            if isinstance(values[0], bool):
                conditions += [f"cookiecutter.{name}", f"not cookiecutter.{name}"]
            else:
                conditions += [f'cookiecutter.{name} {sign} "{value}"' for sign in ("==", "!=") for value in values]
        holds = {condition: self.jinja.compile_expression(condition) for condition in conditions}
        return {
            condition: {number for number, answers in enumerate(self.answers) if holds[condition](cookiecutter=answers)}
            for condition in conditions
        }


def guard(wanted, conditions):
    """Return the shortest condition that holds in the wanted combinations only, or None."""
    for word, join, fits in (("or", set.union, wanted.issuperset), ("and", set.intersection, wanted.issubset)):
        fitting = [condition for condition, where in conditions.items() if fits(where)]
        for size in range(1, len(fitting) + 1):
            for chosen in itertools.combinations(fitting, size):
                if join(*(conditions[condition] for condition in chosen)) == wanted:
                    return f" {word} ".join(chosen)
    return None


def split(text):
    """Return the header of a compiled file and the packages in it."""
    if strange := [line for line in text.splitlines() if not LINE.fullmatch(line)]:
        sys.exit(f"Nothing was locked: uv wrote a line that does not belong into a lock for everybody: {strange[0]}")
    return re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)


def merge(texts, conditions):
    """Return the text that each combination renders to its own of the texts."""
    wanted = {}
    for number, text in enumerate(texts):
        header, *packages = split(text)
        for package in packages:
            wanted.setdefault(package, set()).add(number)

    def guard_of(package):
        if len(wanted[package]) == len(texts):
            return ""
        return guard(wanted[package], conditions) or sys.exit(
            f"Nothing was locked: neither `or` nor `and` of options says when {package.split(' ')[0]} is needed.\n"
            "Make it simpler in pyproject.toml which options bring it in."
        )

    sections = [header]
    ordered = sorted(wanted, key=lambda package: package.partition("==")[0])
    for condition, packages in itertools.groupby(ordered, guard_of):
        section = "".join(packages)
        sections.append(f"{{% if {condition} %}}\n{section}{{% endif %}}\n" if condition else section)
    return "".join(sections)


def needs(pyproject):
    """Return what a pyproject.toml asks for: to run, and to develop."""
    content = tomllib.loads(pyproject)
    return tuple(content["project"]["dependencies"]), tuple(content["dependency-groups"]["dev"])


def union(pyprojects):
    """Return a pyproject.toml that asks for all that any of them asks for."""
    run, develop = (json.dumps(sorted(set().union(*lists))) for lists in zip(*map(needs, pyprojects), strict=True))
    return f'[project]\nname = "all"\nversion = "0"\ndependencies = {run}\n[dependency-groups]\ndev = {develop}\n'


def make_lock(makefile, pyproject, pins, arguments=()):
    """Return FILES as `make lock` in a project makes them; the pins are the files that were there before."""
    uv = shutil.which(os.environ.get("UV", "uv")) or sys.exit("Nothing was locked: uv is neither on PATH nor in $UV.")
    # An outer make would hand its own ARGS down.
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in zip(("Makefile", "pyproject.toml", *FILES), (makefile, pyproject, *pins), strict=True):
            (folder / file).write_text(text, encoding="utf-8")
        command = ["make", "--no-print-directory", "lock", f"UV={uv}", f"ARGS={shlex.join(arguments)}"]
        if subprocess.run(command, cwd=folder, env=environment).returncode:
            sys.exit(f"Nothing was locked: `make lock` failed with this pyproject.toml:\n{pyproject}")
        return [(folder / file).read_text(encoding="utf-8") for file in FILES]


def main():
    """Lock, or say why not and leave everything as it was."""
    template = Template(ROOT)
    conditions = template.conditions()
    makefile = template.render(template.read("Makefile"))[0]
    pyprojects = template.render(template.read("pyproject.toml"))

    pinned = [re.sub(r"^{%.*\n", "", template.read(file), flags=re.MULTILINE) for file in FILES]
    pins = make_lock(makefile, union(pyprojects), pinned, sys.argv[1:])
    distinct = {needs(pyproject): pyproject for pyproject in pyprojects}
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda pyproject: make_lock(makefile, pyproject, pins), distinct.values())
        locks = dict(zip(distinct, made, strict=True))

    written = {}
    for index, file in enumerate(FILES):
        texts = [locks[needs(pyproject)][index] for pyproject in pyprojects]
        merged = merge(texts, conditions)
        if template.render(merged) != texts:
            sys.exit(f"Nothing was locked: {file} would not render as uv wrote it; is the order of packages another?")
        written[template.project / file] = merged

    own = ROOT / "requirements.txt"
    pinned = own.read_text(encoding="utf-8") if own.exists() else ""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    updates = ROOT / "scripts" / FILES[0]  # what `make update` of a project installs
    written[updates], written[own] = make_lock(makefile, pyproject, [pinned, pinned], sys.argv[1:])
    split(written[updates]), split(written[own])

    for file, text in written.items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
