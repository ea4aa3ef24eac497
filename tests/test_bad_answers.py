"""Answers that cannot become a project are refused, all at once, before anything is written."""

import ast
import json
import keyword
import re
import sys

import pytest
from conftest import ROOT

SLUG = "up to 40 lower-case letters, digits and single underscores, a letter first, such as my_shop"
EMAIL = "one such as ada@example.com"
DOMAIN = "one such as www.example.com: lower case, no scheme, port or path; an international name in its xn-- form"


@pytest.fixture
def refusal(cookies, capfd, tmp_path):
    """Render with answers that must be refused, leaving nothing behind; return what was said about each."""

    def refusal(**answers):
        baked = cookies.bake(extra_context=answers)
        assert baked.exit_code != 0
        assert list(tmp_path.glob("bake*/*")) == []
        first, *lines = capfd.readouterr().err.splitlines()
        assert first == "Nothing was written, because of these answers:"
        return [line.strip() for line in lines if line.startswith("  ")]

    return refusal


@pytest.mark.parametrize(
    ("slug", "why"),
    [
        ("my-project", "is not a name for a package"),
        ("my project", "is not a name for a package"),
        ("2fast", "is not a name for a package"),
        ("_private", "is not a name for a package"),
        ("Shop", "is not a name for a package"),
        ("größe", "is not a name for a package"),
        ("a" * 41, "is not a name for a package"),
        ("shop\n", "is not a name for a package"),
        ("class", "is a Python keyword"),
        ("match", "is a Python keyword"),
        ("email", "is a module of Python's standard library"),
        ("site", "is a module of Python's standard library"),
        ("django", "is taken by a folder of the project or a package that it can install"),
        ("celery", "is taken by a folder of the project or a package that it can install"),
        ("test", "is taken by a folder of the project or a package that it can install"),
        ("tests", "is taken by a folder of the project or a package that it can install"),
    ],
)
def test_slug(refusal, slug, why):
    assert refusal(project_slug=slug) == [
        f"project_slug: {json.dumps(slug, ensure_ascii=False)} {why}; expected {SLUG}."
    ]


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "a da@example.com", "ada@exa mple", 'a"@b.c', "a@b@c"]
)
def test_email(refusal, email):
    assert refusal(author_email=email) == [
        f"author_email: {json.dumps(email)} is not an e-mail address; expected {EMAIL}."
    ]


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "https://example.com",
        "example.com:80",
        "example.com/",
        "example..com",
        "-a.com",
        "Example.com",
        "bücher.de",
        "a" * 64 + ".com",
        ".".join(["a" * 60] * 5),
        "exa mple.com",
        "example.com.",
    ],
)
def test_domain(refusal, domain):
    assert refusal(domain_name=domain) == [
        f"domain_name: {json.dumps(domain, ensure_ascii=False)} is not a domain; expected {DOMAIN}."
    ]


@pytest.mark.parametrize("name", ["", "  ", "\t\n"])
def test_empty_names(refusal, name):
    assert refusal(project_name=name, author_name=name, project_slug="shop") == [
        f"project_name: {json.dumps(name)} is empty; expected a name.",
        f"author_name: {json.dumps(name)} is empty; expected a name.",
    ]


def test_control_characters(refusal):
    assert refusal(description="bell\a") == [
        'description: "bell\\u0007" holds a control character; expected printable text.'
    ]


def test_all_at_once(refusal):
    said = refusal(project_name=" ", project_slug="class", author_email="ada", domain_name="a b")

    assert [line.split(":")[0] for line in said] == ["project_name", "project_slug", "author_email", "domain_name"]


def test_every_installed_package_is_taken(default_project):
    """A package that the project installs, in whichever combination, cannot be the name of the project."""
    hook = (ROOT / "hooks" / "pre_gen_project.py").read_text()
    taken = set(re.search(r'TAKEN = set\(\s*"""(.*?)"""', hook, re.DOTALL)[1].split())
    installed = ast.literal_eval(
        default_project.run(
            default_project.python,
            "-c",
            "import importlib.metadata as metadata; print(sorted(metadata.packages_distributions()))",
        ).stdout
    )
    folders = [path.name.removesuffix(".py") for path in default_project.path.iterdir()]

    possible = {
        name
        for name in [*installed, *folders]
        if re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name) and name != default_project.path.name
    }
    assert possible - taken - sys.stdlib_module_names - set(keyword.softkwlist) == set()
