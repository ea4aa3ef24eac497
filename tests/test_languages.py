"""A second language is the edit that docs/operations.md describes; visitors get theirs, and caches mix nothing up."""

import re

import pytest
from conftest import Server, clean_environment, free_port, needs
from test_options import ON
from test_ordinary_edits import edit

VIEWS = """

from django.http import HttpResponse
from django.template import engines

from .scaling.http.public import public

FRAGMENT = '''{% load i18n scaling %}
{% fragment LONG_TTL "name" LANGUAGE_CODE %}{% translate "Home" %}{% endfragment %}'''


def fragment(request):
    return HttpResponse(engines["django"].from_string(FRAGMENT).render({}, request))


urlpatterns += [path("fragment/", fragment), path("public/", public(600)(fragment))]
"""

GERMAN = {"Home": "Startseite", "Page not found": "Seite nicht gefunden", "Skip to the content": "Zum Inhalt"}


def serve_deployed(project, folder, database):
    """Serve a project with the settings of servers."""
    environment = project.configure(folder, ALLOWED_HOSTS=["127.0.0.1"], DATABASE_URL=database, HTTPS=False, WORKERS=1)
    project.manage("migrate", **environment)
    project.manage("collectstatic", "--no-input", **environment)
    address = f"127.0.0.1:{free_port()}"
    command = [project.python, "-m", "gunicorn", "--config=deploy/gunicorn.conf.py", f"--bind={address}"]
    log, environment = folder / "gunicorn.log", clean_environment(**environment)
    return Server(command, address, log, cwd=project.path, env=environment).wait_until_up()


def translate(file):
    """Fill in what makemessages left open."""
    text = file.read_text()
    for english, german in GERMAN.items():
        text = text.replace(f'msgid "{english}"\nmsgstr ""', f'msgid "{english}"\nmsgstr "{german}"')
    file.write_text(text)


@pytest.fixture(scope="module")
def bilingual(set_up, tmp_path_factory):
    needs("msgfmt", "gettext")
    folder = tmp_path_factory.mktemp("languages")
    everything = set_up(**ON)
    project = everything.copy(folder)
    edit(project.package / "settings" / "base.py", (r'^(LANGUAGES = \[.+"English"\))\]', r'\1, ("de", "Deutsch")]'))
    with (project.package / "urls.py").open("a") as urls:
        urls.write(VIEWS)
    commands = re.findall(r"^manage.py (\w+messages.*?)$", (project.path / "docs/operations.md").read_text(), re.M)
    makemessages, compilemessages = (command.split() for command in commands)
    project.manage(*makemessages)
    translate(project.package / "locale" / "de" / "LC_MESSAGES" / "django.po")
    project.manage(*compilemessages)
    with everything.database() as database:
        server = serve_deployed(project, folder, database)
        yield server
        server.stop()


def get(server, path, language):
    return server.get(path, headers={"Accept-Language": language})


def test_everybody_gets_theirs(bilingual):
    german, english = get(bilingual, "/", "de-AT,de;q=0.9,en;q=0.5"), get(bilingual, "/", "en-GB")

    assert '<html lang="de">' in german.text
    assert ">Startseite</a>" in german.text
    assert '<html lang="en-us">' in english.text
    assert ">Home</a>" in english.text
    assert ">Home</a>" in get(bilingual, "/", "fr").text
    assert german.headers["Vary"] == "Accept-Language"


def test_error_page(bilingual):
    assert "<h1>Seite nicht gefunden</h1>" in get(bilingual, "/no/such/page", "de").text
    assert "<h1>Page not found</h1>" in get(bilingual, "/no/such/page", "en").text


def test_fragments_are_apart(bilingual):
    texts = [get(bilingual, "/fragment/", language).text.strip() for language in ("de", "en", "de")]

    assert texts == ["Startseite", "Home", "Startseite"]


def test_public_page_is_not_shared(bilingual):
    """A shared cache does not look at the cookie with which a visitor chooses a language."""
    assert get(bilingual, "/public/", "de").headers["Cache-Control"] == "private"
