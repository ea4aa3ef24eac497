"""Uploaded files: on a server's disk behind nginx, and in the buckets of a real S3-speaking server."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from conftest import Server, clean_environment, free_port, needs
from servers import Relay, Site
from test_cdn import Browser
from test_server import HOST, Proxied, certify

# One transparent pixel, which a browser shows.
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")
PNG = b"\x89PNG\r\n\x1a\n and so on"
SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
NAME = r"uploads/[0-9a-f]{32}\.%s"

# A file arrives as in a field of a model, but without a model; it is said where it went.
VIEWS = """

from django.core.files.storage import storages
from django.db.models import FileField
from django.forms import FileField as FormField, Form
from django.http import HttpResponse, JsonResponse
from django.utils.html import format_html_join

from my_project.scaling.files.uploads import UploadValidator


class UploadForm(Form):
    file = FormField(validators=[UploadValidator()])


def upload(request):
    file, storage = request.FILES["file"], storages[request.GET.get("storage", "default")]
    name = FileField(upload_to="uploads", storage=storage).generate_filename(None, file.name)
    name = storage.save(name, file)
    return JsonResponse({"name": name, "url": storage.url(name)})


def validated(request):
    form = UploadForm(request.POST, request.FILES)
    return JsonResponse(form.errors, status=200 if form.is_valid() else 400)


def stored(request):
    storage = storages["default"]
    return HttpResponse(storage.open(request.GET["name"]).read().decode("latin-1"))


def pictures(request):
    urls = request.GET.getlist("url")
    return HttpResponse(format_html_join("", '<img src="{}">', ((url,) for url in urls)))


def delete(request):
    storages["default"].delete(request.GET["name"])
    return HttpResponse()


for view in (upload, validated):
    view.csrf_exempt = True
urlpatterns += [path("upload", upload), path("validated", validated), path("stored", stored), path("delete", delete)]
urlpatterns += [path("pictures", pictures)]
"""

# What a browser may send as a file's name, raw: as the form's data has it.
HOSTILE = [
    "../../../config.json",
    "..\\..\\a.png",
    "a.html",
    "a.svg",
    ".htaccess",
    "größe.png",
    "a" * 5000,
    "a\0.html",
]


def form(content, name="a.png"):
    """Return the body and the headers of a form with a file, the name as hostile as it is."""
    start = f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    body = start.encode() + b"Content-Type: text/html\r\n\r\n" + content + b"\r\n--limit--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=limit"}


# On the disk, behind nginx


class WithMedia(Proxied):
    """The site behind nginx, whose folder of uploaded files is one of the test's."""

    def __init__(self, project, environment, folder):
        super().__init__(project, environment, folder, {"/srv/my_project/media/": f"{folder}/media/"})

    def upload(self, content, name="a.png", path="/upload"):
        body, headers = form(content, name)
        return self.request("POST", path, body=body, **headers)

    def raw(self, path):
        """Return the status of a path that is sent as it is; clients would tidy it up."""
        context = ssl.create_default_context(cafile=self.folder / "fullchain.pem")
        with (
            socket.create_connection(("127.0.0.1", self.https)) as connection,
            context.wrap_socket(connection, server_hostname=HOST) as client,
        ):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            return int(client.makefile("rb").readline().split()[1])


@pytest.fixture(scope="module")
def disk(default_project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    certify(folder)
    (folder / "secret.txt").write_text("secret")
    project = default_project.copy(folder)
    with (project.package / "urls.py").open("a") as urls:
        urls.write(VIEWS)
    environment = project.configure(folder, ALLOWED_HOSTS=[HOST], WORKERS=1, MEDIA_ROOT=f"{folder}/media")
    project.manage("collectstatic", "--no-input", **environment)
    site = WithMedia(project, clean_environment(**environment), folder).wait()
    yield site
    site.stop()


@pytest.mark.parametrize(
    ("content", "extension", "content_type", "disposition"),
    [
        (PNG, "png", "image/png", "inline"),
        (b"\xff\xd8\xff\xe0", "jpg", "image/jpeg", "inline"),
        (b"GIF89a", "gif", "image/gif", "inline"),
        (b"RIFF....WEBP", "webp", "image/webp", "inline"),
        (b"....ftypavif", "avif", "image/avif", "inline"),
        (b"%PDF-1.7", "pdf", "application/octet-stream", "attachment"),
        (SCRIPT, "bin", "application/octet-stream", "attachment"),
        (b"<html><script>alert(1)</script>", "bin", "application/octet-stream", "attachment"),
    ],
)
def test_file_on_disk(disk, content, extension, content_type, disposition):
    uploaded = disk.upload(content).json()
    response = disk.get(uploaded["url"])

    assert re.fullmatch(NAME % extension, uploaded["name"])
    assert uploaded["url"] == f"/media/{uploaded['name']}"
    assert (response.status, response.data) == (200, content)
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Content-Disposition"] == disposition
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert response.headers["Cache-Control"] == "max-age=604800, public, immutable"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_on_disk(disk, name):
    response = disk.upload(PNG, name)

    assert re.fullmatch(NAME % "png", response.json()["name"]) if response.status == 200 else response.status == 400
    assert {path.parent.name for path in (disk.folder / "media").rglob("*.*")} <= {"uploads"}


def test_same_name_twice_on_disk(disk):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: disk.upload(PNG + str(number).encode()).json(), range(8)))

    assert {disk.get(answer["url"]).data for answer in answers} == {PNG + str(number).encode() for number in range(8)}


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "uploads/../../secret.txt", ".%2e/secret.txt"),
        *(
            "..%5csecret.txt",
            "%2e%2e%2fsecret.txt",
            "/../secret.txt",
            ".hidden.png",
            "uploads/.git/config",
            "",
            "uploads/",
        ),
    ],
)
def test_path_that_leads_elsewhere(disk, path):
    disk.upload(PNG)
    for file in (".hidden.png", "uploads/.git/config"):
        (disk.folder / "media" / file).parent.mkdir(exist_ok=True)
        (disk.folder / "media" / file).write_text("secret")

    assert disk.raw(f"/media/{path}") in (400, 403, 404)
    assert disk.raw(f"/media{path}") in (400, 403, 404)


@pytest.mark.parametrize(
    ("content", "status"),
    [(PNG, 200), (SCRIPT, 400), (b"%PDF-1.7", 400), (PNG + bytes(6 << 20), 400), (bytes(11 << 20), 413)],
)
def test_limits(disk, content, status):
    assert disk.upload(content, path="/validated").status == status


def test_development_shows_files_too(default_project):
    media = default_project.path / ".local" / "media"
    media.mkdir()
    (media / "a.png").write_bytes(PNG)
    ask = "from django.test import Client; print(list(Client().get('/media/a.png')))"
    try:
        assert repr([PNG]) in default_project.manage("shell", "--no-imports", "--command", ask).stdout
    finally:
        shutil.rmtree(media)


# In buckets

AUTHORIZATION = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"}


def uv(*arguments):
    subprocess.run([needs("uv", "uv"), "--quiet", *map(str, arguments)], env=clean_environment(), check=True)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """The address of an S3 server with two buckets, one of which everybody may read."""
    folder = tmp_path_factory.mktemp("moto")
    # Not with the tests' own dependencies: it does not go with those of cookiecutter.
    uv("venv", "--python", sys.executable, folder / "venv")
    uv("pip", "install", "--python", folder / "venv", "--no-build", "moto[server]==5.2.5")
    address = f"127.0.0.1:{free_port()}"
    host, _, port = address.partition(":")
    server = Server([folder / "venv/bin/moto_server", "-H", host, "-p", port], address, folder / "log").wait_until_up()
    for bucket, access in (("private-files", "private"), ("public-files", "public-read")):
        headers = AUTHORIZATION | {"x-amz-acl": access}
        assert requests.put(f"{server.url}/{bucket}", headers=headers, timeout=10).status_code == 200
    policy = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::public-files/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    requests.put(f"{server.url}/public-files?policy", policy, headers=AUTHORIZATION, timeout=10).raise_for_status()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def with_s3(set_up):
    return set_up(media_storage="s3")


@pytest.fixture(scope="module")
def relay(s3):
    relay = Relay(int(s3.url.rpartition(":")[2]))
    yield relay
    relay.refuse()


@pytest.fixture(scope="module")
def start(with_s3, relay, tmp_path_factory):
    started = []

    def start(**values):
        site = Site(
            with_s3,
            tmp_path_factory.mktemp("site"),
            f"from my_project.urls import *\n{VIEWS}",
            WORKERS=1,
            **{
                "MEDIA_S3_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
                "MEDIA_S3_BUCKET": "public-files",
                "MEDIA_S3_PRIVATE_BUCKET": "private-files",
                "MEDIA_S3_ACCESS_KEY": "key",
                "MEDIA_S3_SECRET_KEY": "secret",
            }
            | values,
        )
        if not started:
            with_s3.manage("collectstatic", "--no-input", **site.environment)
        started.append(site)
        site.start("/livez")
        return site

    yield start
    for site in started:
        site.stop()


@pytest.fixture(scope="module")
def site(start):
    return start()


def upload(site, content=PNG, name="a.png", storage="default"):
    body, headers = form(content, name)
    status, text, _, seconds = site.get(f"/upload?storage={storage}", "POST", body, **headers)
    return status, json.loads(text) if status == 200 else text, seconds


def test_public_file(site):
    _, uploaded, _ = upload(site, storage="public")
    response = requests.get(uploaded["url"], timeout=10)

    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/public-files/{NAME % 'png'}", uploaded["url"])
    assert (response.status_code, response.content) == (200, PNG)
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Cache-Control"] == "public, max-age=604800, immutable"


def test_file_that_says_it_is_a_page(site):
    """Its sender has called it text/html."""
    _, uploaded, _ = upload(site, SCRIPT, "a.html", storage="public")
    response = requests.get(uploaded["url"], timeout=10)

    assert uploaded["name"].endswith(".bin")
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Disposition"] == "attachment"


def test_private_file(site):
    _, uploaded, _ = upload(site)
    address, _, query = uploaded["url"].partition("?")

    assert requests.get(uploaded["url"], timeout=10).content == PNG
    assert requests.get(address, timeout=10).status_code == 403
    assert parse_qs(query)["X-Amz-Expires"] == ["600"]
    assert site.get(f"/stored?name={uploaded['name']}")[1] == PNG.decode("latin-1")


def test_public_address_through_a_cdn(start):
    site = start(MEDIA_CDN_URL="https://media.example.com")

    assert upload(site, storage="public")[1]["url"].startswith("https://media.example.com/uploads/")
    assert urlsplit(upload(site)[1]["url"]).hostname == "127.0.0.1"  # signed ones are never the CDN's
    policy = (
        site.get("/livez")[2].get("Content-Security-Policy") or site.get("/no/such/page")[2]["Content-Security-Policy"]
    )
    for name in ("img-src", "media-src"):
        assert re.search(rf"{name} [^;]*https://media\.example\.com/ http://127\.0\.0\.1:\d+/private-files/", policy)


def test_pictures_in_a_browser(site, s3, tmp_path):
    """Those of both buckets are shown, and none of a bucket that somebody else has on the same service."""
    requests.put(f"{s3.url}/public-filesystem", headers=AUTHORIZATION | {"x-amz-acl": "public-read"}, timeout=10)
    public, private = (upload(site, GIF, storage=storage)[1]["url"] for storage in ("public", "default"))
    foreign = public.replace("/public-files/", "/public-filesystem/")
    key = foreign.partition("/public-filesystem/")[2]
    picture = {"Content-Type": "image/gif", "x-amz-acl": "public-read"}
    requests.put(f"{s3.url}/public-filesystem/{key}", GIF, headers=AUTHORIZATION | picture, timeout=10)
    assert requests.get(foreign, timeout=10).content == GIF

    browser = Browser(tmp_path)
    try:
        browser.open(
            f"http://127.0.0.1:{site.port}/pictures?{urlencode({'url': [public, private, foreign]}, doseq=True)}"
        )
        widths = browser.evaluate("[...document.images].map(image => image.naturalWidth)")
        console = browser.console()
    finally:
        browser.stop()

    assert widths == [1, 1, 0]
    assert len(console) == 1
    assert "/public-filesystem/" in console[0]
    assert "Content Security Policy" in console[0]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_in_a_bucket(site, name):
    status, uploaded, _ = upload(site, PNG, name)

    assert re.fullmatch(NAME % "png", uploaded["name"]) if status == 200 else status == 400, (status, uploaded)


def test_same_name_twice_in_a_bucket(site):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: upload(site, PNG + str(number).encode())[1], range(8)))

    assert len({answer["name"] for answer in answers}) == 8
    assert requests.get(answers[0]["url"], timeout=10).content != requests.get(answers[1]["url"], timeout=10).content


@pytest.mark.parametrize("state", ["refused", "hung"])
def test_outage(site, relay, record_property, matrix, state):
    """The request fails within its budget, others do not notice, and the first one afterwards works."""
    name = upload(site)[1]["name"]
    relay.refuse() if state == "refused" else relay.flowing.clear()
    try:
        with ThreadPoolExecutor(3) as pool:
            asked = [
                pool.submit(upload, site),
                pool.submit(site.get, f"/stored?name={name}"),
                pool.submit(site.get, f"/delete?name={name}"),
            ]
            time.sleep(0.5)
            alive = site.get("/livez")[3]
            answers = [future.result() for future in asked]
    finally:
        relay.open() if state == "refused" else relay.flowing.set()

    what = zip(("upload", "read", "delete"), answers, strict=True)
    row = ", ".join(f"{name} {answer[0]} after {answer[-1]:.1f} s" for name, answer in what)
    record_property("Storage of uploaded files", f"{state:10}{row}; /livez {alive:.2f} s")
    statuses, seconds = Counter(answer[0] for answer in answers), max(answer[-1] for answer in answers)
    matrix(f"storage of uploads: {state}", statuses, seconds)
    assert alive < 0.5
    assert [answer[0] for answer in answers] == [500, 500, 500]
    assert max(answer[-1] for answer in answers) < (2 if state == "refused" else 8.5)
    assert upload(site)[0] == 200


def test_memory_is_not_taken_for_each_thread(site):
    """A client takes 13 MB; there is one for all storages and threads."""
    threads = site.project.run(
        site.project.python,
        "-c",
        "import django; django.setup()\n"
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from django.core.files.storage import storages\n"
        "names = ['default', 'public'] * 4\n"
        "print(len(set(Pool(8).map(lambda name: id(storages[name].connection.meta.client), names))))",
        **site.environment,
    )

    assert threads.stdout.strip() == "1"
