"""`make app` makes an app that is whole, or nothing."""

import pytest
from conftest import rendered
from test_options import ON
from test_ordinary_edits import edit

OURS = ("app_template", "docs", "my_project", "tests")


def written(project):
    """Return the texts of a project that an app may change."""
    return {f"{name}/{path}": text for name in OURS for path, text in rendered(project.path / name).items()}


@pytest.fixture(params=[{}, ON], ids=["default", "everything"])
def any_project(request, set_up, tmp_path):
    return set_up(**request.param).copy(tmp_path)


def test_app(any_project, serve):
    """It passes the checks and the tests as it is, and is on the site."""
    project = any_project

    made = project.run("make", "app", "NAME=blog_stories", "MODEL=BlogStory")

    files = "my_project/blog_stories, my_project/templates/blog_stories, tests/test_blog_stories.py"
    assert f"Made {files}, with the model BlogStory" in made.stdout
    assert "It is at /blog_stories/ after manage.py migrate" in made.stdout
    before = written(project)
    again = project.run("make", "app", "NAME=blog_stories", check=False)
    assert "taken by the app my_project.blog_stories" in again.stdout
    assert written(project) == before
    project.run("git", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("make", "lint")
    project.run(
        "make",
        "test",
        "ARGS=-n 1 tests/test_blog_stories.py tests/test_urls.py tests/test_models.py -k 'blog or models'",
    )
    server = serve(project)
    assert "<h1>Blog stories</h1>" in server.get("/blog_stories/").text
    create = "from my_project.blog_stories.models import BlogStory; BlogStory.objects.create(title='Once')"
    project.manage("shell", "--no-imports", "-c", create)
    assert '<a href="/blog_stories/1/">Once</a>' in server.get("/blog_stories/").text
    assert "<h1>Once</h1>" in server.get("/blog_stories/1/").text
    assert server.get("/admin/blog_stories/blogstory/").status_code == 302
    many = create.replace("BlogStory.objects.create(title='Once')", "[BlogStory().save() for _ in range(20)]")
    project.manage("shell", "--no-imports", "-c", many)
    assert '<nav class="pagination"' in server.get("/blog_stories/").text


REFUSED = {
    "class": "keyword",
    "my-pins": "small letters, digits and _",
    "Pins": "small letters, digits and _",
    "1pin": "begins with a letter",
    "a b": "small letters",
    **dict.fromkeys(["movies", "boxes", "series", "status", "analysis", "glass", "shop"], "MODEL=Story"),
    "": "make app NAME=blog_posts",
    "accounts": "taken by the app my_project.accounts",
    "admin": "taken by the app django.contrib.admin",
    "settings": "my_project/settings is there",
    "urls": "tests/test_urls.py is there",
    "media": "/media/ is an address",
}


# Says for each name on the command line why it is refused.
ASK = """
import sys
from django.core.management import CommandError, call_command
for name in sys.argv[1:]:
    try:
        call_command("makeapp", *name.split("/"))
    except CommandError as error:
        print(error)
"""


def test_refused_names(project):
    before = written(project)
    script = f"import django; django.setup(){ASK}"
    settings = {"DJANGO_SETTINGS_MODULE": "my_project.settings.local"}

    said = project.run(project.python, "-c", script, *REFUSED, "pins/--model=pin", **settings).stdout.splitlines()

    reasons = [*REFUSED.values(), "MODEL=Story"]
    assert [reason in line for reason, line in zip(reasons, said, strict=True)] == [True] * len(reasons), said
    assert "make app NAME=blog_posts" in project.run("make", "app", check=False).stdout
    assert written(project) == before


@pytest.mark.parametrize(
    ("file", "pattern", "text"),
    [
        ("settings/base.py", r"^INSTALLED_APPS = \[", "INSTALLED_APPS = [*[]] + ["),
        ("settings/base.py", r'"my_project.scaling",$', '"my_project.scaling"'),
        ("urls.py", r"^from django.urls import include, path", "from django.urls import (\n    include,\n    path,\n)"),
    ],
)
def test_files_that_were_changed(project, file, pattern, text):
    """What cannot be added is told to the letter."""
    edit(project.package / file, (pattern, text))
    before = {name: (project.package / name).read_text() for name in ("settings/base.py", "urls.py")}

    made = project.run("make", "app", "NAME=geese", "MODEL=Goose")

    assert before == {name: (project.package / name).read_text() for name in before}
    assert 'add "my_project.geese", to INSTALLED_APPS of my_project/settings/base.py' in made.stdout
    assert 'add path("geese/", include("my_project.geese.urls")), to urlpatterns of my_project/urls.py' in made.stdout
    assert "class Goose(TimestampedModel):" in (project.package / "geese" / "models.py").read_text()


def test_migration_fails(project):
    """Then nothing has been made."""
    edit(project.path / "app_template" / "app" / "models.py-tpl", ("max_length=200", "max_length=oops"))
    before = written(project)

    failed = project.run("make", "app", "NAME=pins", check=False)

    assert failed.returncode
    assert "nothing has been changed" in failed.stdout
    assert written(project) == before
