import enum
import functools
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group, Permission
from django.core.cache import cache
from django.core.management import call_command
from django.core.paginator import Paginator
from django.db import connection, connections, models, transaction
from django.http import HttpResponse, QueryDict
from django.template import Context, RequestContext, Template, TemplateSyntaxError
from django.urls import path
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy, override

from {{ cookiecutter.project_slug }}.scaling import cache as scaling_cache
from {{ cookiecutter.project_slug }}.scaling.cache import cached, cached_many, database_cache, make_key
from {{ cookiecutter.project_slug }}.scaling.db.models import TimestampedModel
from {{ cookiecutter.project_slug }}.scaling.logs import request_log
from {{ cookiecutter.project_slug }}.settings import deploy
from {{ cookiecutter.project_slug }}.settings.base import CACHES
from tests.rows import make

CLIENTS = 12

DATABASE_CACHE = CACHES["default"]["BACKEND"]

# What each of several processes does: open its connections, say so, and at a line of input ask with many threads.
PROCESS = """
import os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

import django
from django.conf import settings
from {{ cookiecutter.project_slug }}.settings.base import CACHES

_, database, name, log, seconds, clients = sys.argv
settings.DATABASES["default"]["NAME"] = database
settings.CACHES = CACHES
django.setup()

from django.core.cache import cache
from {{ cookiecutter.project_slug }}.scaling.cache import cached

def compute():
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(float(seconds))
    return "computed"

def ask(barrier):
    cache.get("connect")
    barrier.wait(30)
    return cached(name, 600, compute)

barrier = threading.Barrier(int(clients) + 1)
with ThreadPoolExecutor(int(clients)) as pool:
    answers = [pool.submit(ask, barrier) for _ in range(int(clients))]
    while barrier.n_waiting < int(clients) and not barrier.broken:
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.readline()
    barrier.wait()
print(*(answer.result() for answer in answers))
"""


class Counter:
    """A computation that counts its calls, slow enough for others to come upon it."""

    def __init__(self, value="computed", seconds=0.3, fails=False):
        self.value = value
        self.seconds = seconds
        self.fails = fails
        self.calls = 0
        self.lock = threading.Lock()

    def __call__(self):
        with self.lock:
            self.calls += 1
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("the computation failed")
        return self.value


class Article(TimestampedModel):
    title = models.CharField(max_length=50)

    class Meta:
        app_label = "test_cache"

    def __str__(self):
        return "an article"


class ProxyArticle(Article):
    class Meta:
        app_label = "test_cache"
        proxy = True


def page(request):
    template = Template(
        "{% raw %}{% load scaling %}{% fragment LONG_TTL 'page' %}{{ content }} "
        "{% fragment LONG_TTL 'inner' %}{{ content }}{% endfragment %}{% endfragment %}{% endraw %}"
    )
    return HttpResponse(template.render(RequestContext(request, {"content": request.headers["Content"]})))


urlpatterns = [path("page/", page)]


@pytest.fixture(autouse=True)
def backend(request, settings, transactional_db):
    """Caching is on, and outside a transaction, as on the servers."""
    settings.CACHES = {"default": CACHES["default"] | {"BACKEND": getattr(request, "param", DATABASE_CACHE)}}
    yield
    cache.clear()


BACKENDS = [DATABASE_CACHE, "django.core.cache.backends.locmem.LocMemCache"]
on_each_backend = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


@pytest.fixture
def article(transactional_db):
    with connection.schema_editor() as editor:
        editor.create_model(Article)
    yield Article.objects.create(title="old")
    with connection.schema_editor() as editor:
        editor.delete_model(Article)


def at_once(function, clients=CLIENTS):
    """Call the function in many threads at the same moment; return the results, errors among them."""
    barrier = threading.Barrier(clients)

    def call(_):
        try:
            cache.get("connect")
            barrier.wait(30)
            return function()
        except RuntimeError as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(call, range(clients)))


@pytest.fixture
def start_processes(tmp_path):
    """Start processes that ask for a value with many threads as soon as go() says so."""
    started = []

    def start(name, seconds=0.5, processes=2, clients=25):
        database = connection.settings_dict["NAME"]
        log = tmp_path / name
        arguments = [sys.executable, "-c", PROCESS, database, name, str(log), str(seconds), str(clients)]
        new = [
            subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        started.extend(new)
        assert [process.stdout.readline() for process in new] == ["ready\n"] * processes
        return new, log

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


@contextmanager
def counted():
    """Give the figures of what is done in the block, as if it were a request."""
    figures = request_log.Figures()
    token = request_log.current.set(figures)
    yield figures
    request_log.current.reset(token)


def expire(name, *vary_on, value="stale"):
    cached(name, 0.001, lambda: value, *vary_on)
    time.sleep(0.01)


def render(source, **context):
    return Template("{% raw %}{% load scaling %}{% endraw %}" + source).render(Context({"TTL": 600} | context))


@on_each_backend
def test_cached():
    compute = Counter(seconds=0)

    assert [cached("key", 600, compute) for _ in range(3)] == ["computed"] * 3
    assert compute.calls == 1


@on_each_backend
@pytest.mark.parametrize("value", [None, "", 0, False, [], {"a": (1, "ü")}])
def test_cached_value(value):
    compute = Counter(value, seconds=0)

    assert cached("key", 600, compute) == cached("key", 600, compute) == value
    assert compute.calls == 1


@on_each_backend
def test_cached_expires():
    expire("key")

    assert cached("key", 600, lambda: "new") == "new"
    assert cached("key", 600, lambda: "newer") == "new"


@on_each_backend
def test_cached_vary_on():
    """Each combination of name and arguments is a value of its own."""
    variants = [
        ("key",),
        ("key", ""),
        ("key", "a", "b"),
        ("key", "ab"),
        ("key", "a,b"),
        ("key", ["a", "b"]),
        ("key", "Ärger 日本 😀"),
        ("key", "Ärger 日本"),
        ("k" * 500,),
        ("k" * 501,),
        ("key", "x" * 500),
        ("key with\nspaces", 1),
    ]
    for number, (name, *vary_on) in enumerate(variants):
        cached(name, 600, functools.partial(int, number), *vary_on)

    assert [cached(name, 600, lambda: None, *vary_on) for name, *vary_on in variants] == list(range(len(variants)))


class Size(models.TextChoices):
    SMALL = "s"


class Level(models.IntegerChoices):
    LOW = 1


class Color(enum.Enum):
    RED = 1


class Fruit(enum.Enum):
    RED = 1


def test_make_key_differs():
    """What differs in type or value has a key of its own."""
    now = datetime(2026, 1, 2)
    values = [
        *(None, "None", "", b"", b"x", "x", "b'x'", [], [[]], ["x"], "['x']", [None], 0, False, "False", 0.0, "0"),
        *(1, "1", True, 1.0, Decimal("1"), Decimal("1.00"), b"1", [1], ["1"], [1, 1], Color.RED, Fruit.RED, "RED"),
        *(now, now.replace(tzinfo=UTC), now.date(), now.time(), str(now), str(now.date()), timedelta(1), "1 day"),
        *(UUID(int=1), str(UUID(int=1)), ["str", "x"], ("str", "y"), AnonymousUser(), "AnonymousUser", "anonymous"),
    ]

    assert len({make_key("key", value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (gettext_lazy("yes"), "yes"),
        (mark_safe("<p>"), "<p>"),
        (Size.SMALL, "s"),
        (Level.LOW, 1),
        (SimpleLazyObject(lambda: "text"), "text"),
        (SimpleLazyObject(AnonymousUser), AnonymousUser()),
        ((1, "a"), [1, "a"]),
        (range(3), [0, 1, 2]),
        (Paginator("abcd", 2).page(1), ["a", "b"]),
        (time_of_day(1, 2), time_of_day(1, 2)),
        (date(2026, 1, 2), date(2026, 1, 2)),
    ],
)
def test_make_key_is_the_same(value, same):
    assert make_key("key", value) == make_key("key", same)


def test_make_key_of_rows(article):
    """A row is the same however it was got, and another one than any that looks like it."""
    other = Article.objects.create(title="old")
    Article.objects.update(modified=article.modified)
    article, other = Article.objects.order_by("pk")
    key = make_key("key", article)

    assert key != make_key("key", other)
    assert make_key("key", SimpleLazyObject(lambda: article)) == key
    assert make_key("key", ProxyArticle.objects.get(pk=article.pk)) == key
    assert make_key("key", Article.objects.only("modified").get(pk=article.pk)) == key
    rows = [make_key("key", rows) for rows in (Article.objects.order_by("pk"), [article, other], (article, other))]
    assert len(set(rows)) == 1
    assert rows[0] != make_key("key", Article.objects.order_by("-pk"))
    article.save()
    assert make_key("key", article) != key


def test_make_key_of_rows_without_timestamps():
    groups = [Group.objects.create(name=name) for name in ("authors", "readers")]

    assert len({make_key("key", value) for value in [*groups, AnonymousUser(), groups[0].pk, str(groups[0])]}) == 5
    assert make_key("key", groups[0]) == make_key("key", pickle.loads(pickle.dumps(groups[0])))


def test_make_key_of_rows_that_are_not_saved():
    for fields in ({}, {"pk": 1}):
        with pytest.raises(ValueError, match="not saved"):
            make_key("key", Group(**fields))


@pytest.mark.parametrize(
    "value", [{1, 2}, frozenset("ab"), {"a": 1}, object(), len, (n for n in "ab"), map(str, "ab"), ["a", {"b"}], 1j]
)
def test_make_key_refuses(value):
    """What has no value of its own, or not the same one in every process, would show one visitor's part to another."""
    with pytest.raises(TypeError, match=r"cannot vary on .+ It takes None, text"):
        make_key("key", value)


def test_make_key_refuses_managers():
    """All managers look alike; in a template `group.permissions.all` is what varies."""
    group, other = (Group.objects.create(name=name) for name in ("authors", "readers"))
    group.permissions.add(Permission.objects.first())

    assert make_key("key", group.permissions.all()) != make_key("key", other.permissions.all())
    with pytest.raises(TypeError, match="ManyRelatedManager"):
        make_key("key", group.permissions)


@pytest.mark.parametrize("value", ["bm90IHBpY2tsZWQ=", "bm8gYmFzZTY0!", "Y25vLnN1Y2gubW9kdWxlCkNsYXNzCi4="])
def test_unreadable(value):
    """What other code has written, or half of it, is computed anew."""
    cached("key", 600, lambda: "old")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE cache SET value = %s", [value])

    assert cached("key", 600, lambda: "new") == cached("key", 600, lambda: "newer") == "new"


def test_jitter():
    """500 keys that are set together expire all over the time from 20 % before to 20 % after the TTL."""
    ttl = 1000
    for number in range(500):
        cached("key", ttl, lambda: None, number)
    lifetimes = [cache.get(make_key("key", number))[0] - time.time() for number in range(500)]

    # The chance that no one in 500 is in the outermost tenth of the range is below 1e-22.
    assert 0.8 * ttl - 60 < min(lifetimes) < 0.84 * ttl
    assert 1.16 * ttl - 60 < max(lifetimes) < 1.2 * ttl


@on_each_backend
def test_herd_cold():
    """Many threads ask for what nobody has computed: one computes, and all get it."""
    compute = Counter()

    assert at_once(lambda: cached("key", 600, compute)) == ["computed"] * CLIENTS
    assert compute.calls == 1


@on_each_backend
def test_herd_expired():
    """Many threads ask for an expired value: one computes, and the others get the old value without waiting."""
    expire("key")
    compute = Counter(seconds=2)
    times = []

    def ask():
        start = time.monotonic()
        answer = cached("key", 600, compute)
        times.append(time.monotonic() - start)
        return answer

    assert sorted(at_once(ask)) == ["computed"] + ["stale"] * (CLIENTS - 1)
    assert compute.calls == 1
    assert sorted(times)[-2] < 2


@on_each_backend
def test_herd_computation_fails():
    """One caller sees the error of a computation, the next one computes."""
    failing, compute = Counter(seconds=0.1, fails=True), Counter()

    with pytest.raises(RuntimeError):
        cached("key", 600, failing)
    assert cached("key", 600, compute) == "computed"

    failed = at_once(lambda: cached("other key", 600, failing), clients=4)
    assert {type(answer) for answer in failed} == {RuntimeError}
    assert failing.calls == 5


def test_herd_expired_computation_fails():
    """While computations fail, one caller at a time sees the error, and the others get the old value."""
    expire("key")
    failing = Counter(fails=True)
    answers = at_once(lambda: cached("key", 600, failing))

    assert answers.count("stale") == CLIENTS - failing.calls
    assert failing.calls < CLIENTS / 2


@pytest.mark.parametrize(("name", "expected"), [("cold", {"computed"}), ("expired", {"computed", "stale"})])
def test_processes(start_processes, name, expected):
    """All threads of two processes ask for a value at once: one of them computes it."""
    expire("expired")
    processes, log = start_processes(name)
    for process in processes:
        go(process)
    answers = [answer for process in processes for answer in process.communicate(timeout=30)[0].split()]

    assert set(answers) == expected
    assert len(log.read_text().splitlines()) == 1


def test_process_killed(start_processes):
    """A process that is killed while it computes makes way for the next within seconds."""
    (process,), log = start_processes("key", seconds=60, processes=1, clients=1)
    go(process)
    while not log.exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    compute = Counter()
    start = time.monotonic()

    assert at_once(lambda: cached("key", 600, compute), clients=4) == ["computed"] * 4
    assert time.monotonic() - start < scaling_cache.WAIT_SECONDS
    assert compute.calls < 4


def test_slow_computation(monkeypatch):
    """Whoever waits for a computation that hangs computes after a bounded time."""
    monkeypatch.setattr(scaling_cache, "LOCK_SECONDS", 60)
    monkeypatch.setattr(scaling_cache, "WAIT_SECONDS", 0.5)
    ended, started = threading.Event(), threading.Event()

    def hang():
        started.set()
        ended.wait(30)

    def ask():
        cached("key", 600, hang)
        connections.close_all()

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(5)
    assert cached("key", 600, lambda: "mine") == "mine"
    ended.set()
    thread.join()


def test_cache_read_only():
    """A database that takes no writes, as in a failover, makes nobody wait."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    start = time.monotonic()
    try:
        assert cached("key", 600, lambda: "computed") == "computed"
    finally:
        connection.close()
    assert time.monotonic() - start < scaling_cache.POLL_SECONDS * 10


def test_cache_fails_to_store():
    """What cannot be stored is returned all the same, and keeps nothing else from running after a commit."""
    unpicklable = threading.Lock()
    ran = []
    with transaction.atomic():
        assert cached("key", 600, lambda: unpicklable) is unpicklable
        transaction.on_commit(lambda: ran.append("task"))

    assert ran == ["task"]


@on_each_backend
def test_transaction_committed():
    """A value is cached at the commit, and until then nobody waits for the transaction."""

    def ask_elsewhere():
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '3s'")
        start = time.monotonic()
        return cached("key", 600, lambda: "elsewhere"), time.monotonic() - start

    with transaction.atomic():
        assert cached("key", 600, lambda: "computed") == "computed"
        ((answer, seconds),) = at_once(ask_elsewhere, clients=1)
    assert answer == "elsewhere"
    assert seconds < 2
    assert cached("key", 600, lambda: "again") == "computed"


@on_each_backend
def test_transaction_rolled_back():
    """A value that rests on rows which are rolled back is never seen."""
    with transaction.atomic():
        assert cached("key", 600, lambda: "computed") == "computed"
        transaction.set_rollback(True)

    assert cached("key", 600, lambda: "again") == "again"


def test_flush_visitor(client):
    client.get("/page/", headers={"Content": "old"})
    client.force_login(make(get_user_model()))

    assert client.get("/page/?flush", headers={"Content": "new"}).text == "old old"
    client.logout()
    assert client.get("/page/?flush=1", headers={"Content": "new"}).text == "old old"


def test_flush_staff(client):
    """Everybody gets what the staff's flush computed, inner fragments too; without the parameter nothing is."""
    client.get("/page/", headers={"Content": "old"})
    client.force_login(make(get_user_model(), is_staff=True))

    assert client.get("/page/", headers={"Content": "new"}).text == "old old"
    assert client.get("/page/?flush", headers={"Content": "new"}).text == "new new"
    client.logout()
    assert client.get("/page/", headers={"Content": "newer"}).text == "new new"

{% raw %}
def test_fragment():
    """The name is no variable, with or without quotes, and may be what cached() is called with elsewhere."""
    source = "{% fragment TTL name %}{{ content }}{% endfragment %}"
    cached("name", 600, lambda: "not a fragment")

    assert render(source, content="<ü>", name=1) == render(source, content="new", name=2) == "&lt;ü&gt;"
    assert render(source.replace("name", "'name'"), content="new") == "&lt;ü&gt;"


def test_fragment_vary_on():
    source = "{% fragment TTL 'name' user|upper language %}{{ content }}{% endfragment %}"

    assert render(source, user="ada", language="en", content="1") == "1"
    assert render(source, user="ada", language="de", content="2") == "2"
    assert render(source, user="bob", language="en", content="3") == "3"
    assert render(source, user="ADA", language="en", content="4") == "1"


def test_fragment_in_languages(rf):
    template = Template(
        "{% load i18n scaling %}{% fragment LONG_TTL 'name' LANGUAGE_CODE %}{% translate 'March' %}{% endfragment %}"
    )

    def shown(language):
        with override(language):
            return template.render(RequestContext(rf.get("/")))

    assert [shown(language) for language in ("en", "de", "en")] == ["March", "März", "March"]


@pytest.mark.parametrize("variable", ["articles", "articles|default:1", "article.titles", "article.title.text"])
def test_fragment_varies_on_no_misspelt_name(article, variable):
    """All fragments would be the same."""
    source = f"{{% fragment TTL 'name' {variable} %}}text{{% endfragment %}}"

    with pytest.raises(TemplateSyntaxError, match=re.escape(variable.partition("|")[0])):
        render(source, article=article)


@pytest.mark.parametrize("variable", ["page.author.pk", "get.page", "get.page|default:1", "articles.0", "none"])
def test_fragment_varies_on_missing_values(variable):
    source = f"{{% fragment TTL 'name' {variable} %}}text{{% endfragment %}}"
    values = {"page": {"author": None}, "get": QueryDict(), "articles": [], "none": None}

    assert render(source, **values) == "text"


def test_fragment_key_based_expiry(article):
    """What was saved shows at once, and inner fragments that did not change are taken from the cache."""
    other = Article.objects.create(title="other")
    source = (
        "{% fragment TTL 'list' articles %}{% fragment TTL 'article' article for article in articles %}"
        "{{ article.title }}-{{ rendered }} {% endfragment %}{% endfragment %}"
    )

    def shown(rendered):
        return render(source, articles=Article.objects.order_by("pk"), rendered=rendered)

    assert shown("first") == "old-first other-first "
    assert shown("second") == "old-first other-first "
    Article.objects.filter(pk=other.pk).update(title="new")
    assert shown("third") == "old-first new-third "
    article.save()
    assert shown("fourth") == "old-fourth new-third "


def test_fragments_of_a_list():
    source = (
        "{% fragment TTL 'word' word language for word in words %}{{ word }}{{ forloop.counter }}-{{ rendered }} "
        "{% empty %}There is no {{ word }}.{% endfragment %}"
    )

    def shown(words, rendered, language="en"):
        return render(source, words=words, word="word", rendered=rendered, language=language)

    assert shown(["<a>", "b"], 1) == "&lt;a&gt;-1 b-1 "
    assert shown(["b", "c", "<a>", "b"], 2) == "b-1 c-2 &lt;a&gt;-1 b-1 "
    assert shown(("b", "c"), 3, language="de") == "b-3 c-3 "
    assert shown([], 4) == shown(None, 4) == "There is no word."


def test_fragments_of_a_list_fetch_for_all(article, settings):
    """What parts lack of their rows is fetched at once, also when only one part is made."""
    settings.FETCH_MODE = "FETCH_PEERS"
    Article.objects.bulk_create(Article(title=f"title {number}") for number in range(5))
    source = "{% fragment TTL 'title' article for article in articles %}{{ article.title }}{% endfragment %}"

    with counted() as figures:
        render(source, articles=Article.objects.defer("title"))

    assert figures.queries == 2


def test_fragments_of_a_list_on_the_database_cache(article):
    """However long the list, the cache gets a few statements at first, and one when all is there."""
    Article.objects.bulk_create(Article(title=f"title {number}") for number in range(19))
    source = "{% fragment TTL 'title' article for article in articles %}{{ article.title }}{% endfragment %}"
    costs = []
    for _ in ("cold", "warm", "one changed"):
        with counted() as figures:
            render(source, articles=Article.objects.order_by("pk"))
        costs.append((figures.queries, figures.cache_queries, figures.cache_misses))
        if len(costs) == 2:
            article.save()

    assert costs[1] == (1, 1, 0)
    assert [queries for queries, _, _ in costs] == [1, 1, 1]
    assert max(cache_queries for _, cache_queries, _ in costs) <= 7  # with the rows counted at two writes


@on_each_backend
def test_herd_of_a_list():
    """Many threads ask for the same list, of which a part is there: one makes the others."""
    source = "{% fragment TTL 'word' word for word in words %}{{ compute }} {% endfragment %}"
    render(source, words="a", compute="old")
    compute = Counter()

    assert at_once(lambda: render(source, words="abc", compute=compute)) == ["old computed computed "] * CLIENTS
    assert compute.calls == 2


@on_each_backend
def test_herd_of_a_list_expired():
    """Many threads ask for a list of which a part has expired: one makes it, the others get the old one."""
    render("{% fragment TTL 'word' word for word in words %}old {% endfragment %}", words="ab")
    expired = make_key("fragment word", "b")
    cache.set(expired, (time.time() - 1, "stale "))
    compute = Counter(seconds=1)
    source = "{% fragment TTL 'word' word for word in words %}{{ compute }} {% endfragment %}"

    answers = at_once(lambda: render(source, words="ab", compute=compute))

    assert sorted(answers) == ["old computed "] + ["old stale "] * (CLIENTS - 1)
    assert compute.calls == 1


def test_stale_for_a_minute():
    """What expired longer ago is not served, however long a neighbour of it is kept."""
    keys = [make_key("key", number) for number in range(2)]
    cache.set_many({keys[0]: (time.time() - scaling_cache.STALE_SECONDS - 1, "old"), keys[1]: (0, "older")})

    answers = at_once(lambda: cached_many(600, dict.fromkeys(keys, Counter("new"))), clients=3)

    assert answers == [dict.fromkeys(keys, "new")] * 3


def test_cached_many_of_nothing():
    assert cached_many(600, {}) == {}


def test_jitter_of_a_list():
    render("{% fragment 1000 'n' n for n in numbers %}{% endfragment %}", numbers=range(200))
    lifetimes = [cache.get(make_key("fragment n", number))[0] - time.time() for number in range(200)]

    assert 0.8 * 1000 - 60 < min(lifetimes) < 0.9 * 1000
    assert 1.1 * 1000 - 60 < max(lifetimes) < 1.2 * 1000


@pytest.mark.parametrize(
    "source",
    [
        "{% fragment TTL %}{% endfragment %}",
        "{% fragment UNKNOWN_TTL 'name' %}{% endfragment %}",
        "{% fragment 'soon' 'name' %}{% endfragment %}",
        "{% fragment TTL 'name' %}",
        "{% fragment TTL 'name' %}{% empty %}{% endfragment %}",
        "{% fragment TTL 'name' 1 for word in words %}{% endfragment %}",
        "{% fragment TTL 'name' words for word in words %}{% endfragment %}",
        "{% fragment TTL 'name' word for word in wrods %}{% endfragment %}",
        "{% fragment TTL 'name' word for word %}{% endfragment %}",
        "{% fragment TTL 'name' word for word in %}{% endfragment %}",
        "{% fragment TTL for word in words %}{% endfragment %}",
    ],
)
def test_fragment_errors(source):
    with pytest.raises(TemplateSyntaxError):
        render(source, words=["word"])


def test_ttls(rf, settings):
    template = Template("{{ SHORT_TTL }} {{ MIDDLE_TTL }} {{ LONG_TTL }} {{ FOREVER_TTL }}")

    ttls = (settings.SHORT_TTL, settings.MIDDLE_TTL, settings.LONG_TTL, settings.FOREVER_TTL)
    assert template.render(RequestContext(rf.get("/"))) == " ".join(map(str, ttls))


{% endraw %}
def test_database_cache_writes_at_once():
    values = {f"key-{number}": number for number in range(50)}
    cache.set_many({"key-1": "old", "expired": 1})
    cache.set("expired", 1, timeout=-1)
    with counted() as figures:
        failed = cache.set_many(values, timeout=None)

    assert failed == []
    assert figures.cache_queries <= 2
    assert cache.get_many(values) == values
    assert (cache.add("key-1", "new"), cache.get("key-1")) == (False, 1)
    assert (cache.add("expired", "new"), cache.get("expired")) == (True, "new")


@pytest.mark.parametrize("in_transaction", [False, True])
def test_database_cache_takes_no_writes(in_transaction):
    """A write that fails is reported, and the transaction that it is in goes on."""
    with transaction.atomic() if in_transaction else nullcontext(), connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on; SET transaction_read_only = on")
        try:
            assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
            assert cache.add("a", 1) is False
            assert cache.get("a") is None
        finally:
            cursor.execute("SET default_transaction_read_only = off")


@pytest.mark.parametrize("count_every", [1, 10**9])
def test_write_in_a_transaction_that_will_be_rolled_back(monkeypatch, count_every):
    monkeypatch.setattr(database_cache, "COUNT_EVERY", count_every)
    with transaction.atomic():
        transaction.set_rollback(True)
        assert cache.set_many({"a": 1}) == ["a"]
        assert cache.add("a", 1) is False


def test_two_keys_of_the_same_name():
    assert cache.set_many({1: "first", "1": "last", "other": "kept"}) == []
    assert cache.get_many(["1", "other"]) == {"1": "last", "other": "kept"}


def test_database_cache_makes_room(settings, monkeypatch):
    """What has expired goes first, then a third."""
    monkeypatch.setattr(database_cache, "COUNT_EVERY", 1)
    settings.CACHES = {"default": settings.CACHES["default"] | {"OPTIONS": {"MAX_ENTRIES": 30}}}
    cache.set_many({f"expired-{number}": number for number in range(20)}, timeout=-1)
    keys = [make_key("key", number) for number in range(31)]
    for key in keys:
        cache.set(key, "value")

    assert len(cache.get_many(keys)) == 31
    cache.set("another", "value")
    assert 20 < len(cache.get_many(keys)) < 25


def test_migrate_creates_tables(settings):
    """`migrate` creates the table that CACHES names, also when the name is new, and leaves it alone afterwards."""
    settings.CACHES = {"default": CACHES["default"] | {"LOCATION": "other cache"}}
    call_command("migrate", verbosity=0)
    cache.set("key", "value")
    call_command("migrate", verbosity=0)

    assert cache.get("key") == "value"
    with connection.cursor() as cursor:
        cursor.execute('DROP TABLE "other cache"')
    settings.CACHES = CACHES


def test_migrate_asks_routers(settings):
    """A router keeps the table out of databases where it does not belong."""

    class Router:
        def allow_migrate(self, db, app_label, **hints):
            return False if app_label == "django_cache" else None

    settings.DATABASE_ROUTERS = [Router()]
    settings.CACHES = {"default": CACHES["default"] | {"LOCATION": "other cache"}}
    call_command("migrate", verbosity=0)

    assert "other cache" not in connection.introspection.table_names()
    settings.CACHES = CACHES


def test_keys_name_the_project_and_the_environment():
    prefix = f"{{ cookiecutter.project_slug }}:{deploy.config.ENVIRONMENT}"

    assert deploy.CACHES["default"]["KEY_PREFIX"] == prefix


def test_incr():
    """Nobody's addition is lost, and the number expires when it would have."""
    with pytest.raises(ValueError, match="number"):
        cache.incr("number")
    cache.set("number", 0, 1000)
    expires = "SELECT expires FROM cache WHERE cache_key LIKE '%%:number'"
    with connection.cursor() as cursor:
        before = cursor.execute(expires).fetchall()
        at_once(lambda: [cache.incr("number") for _ in range(10)])
        after = cursor.execute(expires).fetchall()

    assert cache.get("number") == 10 * CLIENTS
    assert cache.decr("number", 5) == 10 * CLIENTS - 5
    assert before == after
    cache.set("number", 1, -1)
    with pytest.raises(ValueError, match="number"):
        cache.incr("number")
