"""Whatever somebody answers arrives unharmed in every format, and the project still works."""

import html.parser
import json
import tomllib

import pytest
from markdown_it import MarkdownIt

PUNCTUATION = 'O\'Brien & Söhne "Ltd" \\ $(x) ${y} %s {z} #1 --'
# Cookiecutter renders answers that come from the command line: this one arrives as {{ 7 * 7 }} {% now %} {# … #}.
TEMPLATE_SYNTAX = "{% raw %}{{ 7 * 7 }} {% now 'Y' %} {# gone? #}{% endraw %}"
HOSTILE = {
    "punctuation": (PUNCTUATION, PUNCTUATION),
    "template-syntax": (TEMPLATE_SYNTAX, "{{ 7 * 7 }} {% now 'Y' %} {# gone? #}"),
    "blanks": ("  two \t blanks\n and a tab ", "two blanks and a tab"),
    "cyrillic": ("Почта — всем", "Почта — всем"),
    "japanese": ("東京の店", "東京の店"),
    "right-to-left": ("متجر الكتب", "متجر الكتب"),
    "emoji": ("🚀 Launch 👩‍🚀", "🚀 Launch 👩‍🚀"),
    "markdown": ("*bold* _it_ `code` [a](b) <b>x</b> ![i](j) &amp; ~~s~~ $x$ 1. |", None),
    "list-item": ("1. first - second", None),
    "markup": ("<script>alert('x')</script>", None),
    "yaml": ("yes: [no, {off}] !!null | > @ % -", None),
    "quotes": ("''' \"\"\" ` ’ \\", None),
    "long": ("w" * 200, None),
}


@pytest.fixture(scope="session", params=HOSTILE)
def hostile(request, cookies_session):
    """A project whose texts are all hostile, and what should be read in it."""
    given, expected = HOSTILE[request.param]
    baked = cookies_session.bake(
        extra_context={"project_name": given, "description": given, "author_name": given, "project_slug": "shop"}
    )
    assert baked.exception is None
    return baked.project_path, given if expected is None else expected


def text_of(markdown):
    """Return the texts of the first heading and the first paragraph of a Markdown document."""
    tokens = [token for token in MarkdownIt().parse(markdown) if token.type == "inline"][:2]
    return ["".join(child.content for child in token.children) for token in tokens]


def test_pyproject(hostile):
    path, text = hostile

    project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["description"] == text
    assert project["authors"] == [{"name": text, "email": "you@example.com"}]


def test_readme(hostile):
    path, text = hostile

    assert text_of((path / "README.md").read_text(encoding="utf-8")) == [text, text]


def test_python_and_json(hostile):
    path, _ = hostile

    for file in path.rglob("*.py"):
        compile(file.read_text(encoding="utf-8"), file, "exec")
    for file in path.rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Project", "my_project"),
        ("Café Zürich", "cafe_zurich"),
        ("Почта", "pochta"),
        ("東京", "dong_jing"),
        ("3D Shop", "project_3d_shop"),
        ("🚀", "project"),
        (PUNCTUATION, "o_brien_sohne_ltd_x_y_s_z_1"),
        ("word " * 40, "word_word_word_word_word_word"),
    ],
)
def test_slug_derived_from_name(cookies, name, slug):
    baked = cookies.bake(extra_context={"project_name": name})

    assert baked.exception is None
    assert baked.project_path.name == slug


def test_empty_description(cookies):
    path = cookies.bake(extra_context={"description": ""}).project_path

    assert "\n\n\n" not in (path / "README.md").read_text()
    assert "description" not in tomllib.loads((path / "pyproject.toml").read_text())["project"]


class Texts(html.parser.HTMLParser):
    """Collects the first text of each element of a page."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts = [], {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], data.strip())


@pytest.mark.parametrize(("case", "tests"), [("punctuation", ""), ("template-syntax", "tests/test_pages.py")])
def test_hostile_project_works(set_up, serve, case, tests):
    """A project with hostile texts is set up, passes its tests, is clean, and shows its name."""
    given, text = HOSTILE[case]
    project = set_up(project_name=given, description=given, author_name=given, project_slug="shop")

    project.run("make", "test", f"ARGS={tests}")
    project.run(".venv/bin/ruff", "check")
    project.run(".venv/bin/ruff", "format", "--check")
    server = serve(project)
    assert f" | {text}</title>" in html.unescape(server.get("/admin/login/").text)
    texts = Texts(server.get("/").text).texts
    assert texts["h1"] == text
    assert texts["title"] == text
    assert texts["p"] == text
