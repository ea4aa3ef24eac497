import re

import pytest
from django.core.exceptions import SuspiciousFileOperation, ValidationError
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import FileField
from django.db.models.fields.files import FieldFile

from {{ cookiecutter.project_slug }}.scaling.files.uploads import FileSystemStorage, UploadValidator, type_of

PNG = b"\x89PNG\r\n\x1a\n and so on"
SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.fixture
def storage(tmp_path):
    return FileSystemStorage(location=tmp_path / "media")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "jpg"),
        (b"GIF89a", "gif"),
        (b"RIFF\x24\n\x00\x00WEBPVP8 ", "webp"),
        (b"\x00\x00\x00\x1cftypavif", "avif"),
        (b"%PDF-1.7", "pdf"),
        (SCRIPT, "bin"),
        (b"<html>", "bin"),
        (b" GIF89a", "bin"),
        (b"", "bin"),
    ],
)
def test_type(start, expected):
    file = ContentFile(start)

    assert type_of(file) == expected
    assert file.read() == start


def test_type_of_text():
    assert type_of(ContentFile("text")) == "bin"


@pytest.mark.parametrize(
    ("content", "code"), [(PNG, None), (PNG + bytes(100), "size"), (SCRIPT, "type"), (b"%PDF-1", "type"), (b"", "type")]
)
def test_validator(content, code):
    validate = UploadValidator(types=["png", "jpg"], max_size=100)

    if code is None:
        validate(SimpleUploadedFile("a.png", content))
    else:
        with pytest.raises(ValidationError) as error:
            validate(SimpleUploadedFile("a.png", content, "image/png"))
        assert error.value.code == code


def test_validator_leaves_stored_files_alone(storage):
    """A form that is sent without another file does not fetch the one there is."""
    stored = FieldFile(None, FileField(storage=storage), "gone.png")

    UploadValidator()(stored)


def test_validator_in_a_migration():
    path, args, kwargs = UploadValidator(types=["png"], max_size=1).deconstruct()

    assert (path, args) == ("{{ cookiecutter.project_slug }}.scaling.files.uploads.UploadValidator", ())
    assert UploadValidator(**kwargs) == UploadValidator(types=("png",), max_size=1)
    assert UploadValidator() != UploadValidator(max_size=1)


@pytest.mark.parametrize(
    "name",
    [
        *("a.png", "a.html", "a.svg", "a.png.php", ".htaccess", "a\0.html", "größe.png", "\u202egnp.exe"),
        *("a" * 300, "CON", "a b;c", "~/.ssh/config", "..png", '"><script>'),
    ],
)
def test_hostile_names(storage, name):
    field = FileField(upload_to="avatars", storage=storage)

    saved = storage.save(field.generate_filename(None, name), ContentFile(PNG))

    assert re.fullmatch(r"(avatars|avatars/~/\.ssh)/[0-9a-f]{32}\.png", saved)
    assert storage.open(saved).read() == PNG


@pytest.mark.parametrize("name", ["../a.png", "avatars/../../a.png", "/etc/a.png"])
def test_names_that_lead_elsewhere(storage, name):
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(PNG))


def test_extension_is_that_of_the_content(storage):
    assert storage.save("a.png", ContentFile(SCRIPT)).endswith(".bin")


def test_same_name_twice(storage):
    first, second = (storage.save("a.png", ContentFile(PNG + number)) for number in (b"1", b"2"))

    assert first != second
    assert storage.open(first).read() == PNG + b"1"
