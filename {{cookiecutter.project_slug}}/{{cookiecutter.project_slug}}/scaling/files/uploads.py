"""Uploaded files: judged by their content, whatever they are called, and kept under names that nobody has chosen."""

import posixpath
import re
import secrets

from django.core.exceptions import ValidationError
from django.core.files import storage
from django.template.defaultfilters import filesizeformat
from django.utils.deconstruct import deconstructible
from django.utils.translation import gettext as _

# How a file begins, by the extension it gets. Nothing that runs in a browser, as HTML and SVG do, is among them.
TYPES = {
    "avif": rb"....ftypavi[fs]",
    "gif": rb"GIF8[79]a",
    "jpg": rb"\xff\xd8\xff",
    "pdf": rb"%PDF-",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
}
IMAGES = ("avif", "gif", "jpg", "png", "webp")

MEGABYTE = 1024 * 1024


def type_of(file):
    """Return the key of TYPES that a file begins like, or "bin"."""
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    start = start.encode() if isinstance(start, str) else start
    return next((name for name, pattern in TYPES.items() if re.match(pattern, start, re.DOTALL)), "bin")


@deconstructible
class UploadValidator:
    """Refuse an upload that is of none of the types, which are keys of TYPES, or has more than `max_size` bytes.

    For fields of forms and of models; a file that a model has had before is not fetched to be looked at again.
    """

    def __init__(self, types=IMAGES, max_size=5 * MEGABYTE):
        self.types, self.max_size = tuple(types), max_size

    def __call__(self, file):
        if getattr(file, "_committed", False):
            return
        if file.size > self.max_size:
            sizes = {"found": filesizeformat(file.size), "most": filesizeformat(self.max_size)}
            raise ValidationError(_("The file has %(found)s; the most is %(most)s."), code="size", params=sizes)
        if type_of(file) not in self.types:
            types = {"types": ", ".join(self.types)}
            raise ValidationError(_("The file is none of these: %(types)s."), code="type", params=types)

    def __eq__(self, other):
        return isinstance(other, UploadValidator) and (self.types, self.max_size) == (other.types, other.max_size)


class RandomNames:
    """A storage whose files have random names, in the folder they are meant for, and the extension of their content.

    So none replaces another, none can be guessed, and none is served as what an attacker has called it.
    """

    def save(self, name, content, max_length=None):
        folder = posixpath.dirname(name or content.name)
        name = posixpath.join(folder, f"{secrets.token_hex(16)}.{type_of(content)}")
        return super().save(name, content, max_length)


class FileSystemStorage(RandomNames, storage.FileSystemStorage):
    pass
