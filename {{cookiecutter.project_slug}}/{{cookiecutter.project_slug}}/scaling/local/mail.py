"""Mail of a development machine: kept in .local/mail instead of sent, and shown on /dev/mail/."""

import logging
import os
import time
from datetime import datetime
from email import message_from_bytes, policy
from functools import cached_property

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend

FOLDER = settings.BASE_DIR / ".local" / "mail"
KEPT = 100  # the newest

logger = logging.getLogger(__name__)


class EmailBackend(BaseEmailBackend):
    def send_messages(self, email_messages):
        for message in email_messages:
            keep(message)
        return len(email_messages)


def keep(message):
    """Write a mail to a file of its own, whole at once, and say where it is shown."""
    content = message.message()
    if message.bcc:
        content["Bcc"] = ", ".join(message.bcc)
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns()}-{os.getpid()}"
    unfinished = FOLDER / name
    unfinished.write_bytes(content.as_bytes())
    unfinished.rename(FOLDER / f"{name}.eml")
    for oldest in files()[:-KEPT]:
        oldest.unlink(missing_ok=True)
    logger.info("Mail to %s is kept, and shown on /dev/mail/%s/: %s", ", ".join(message.to), name, message.subject)


def newest():
    """Return the last mails, the newest first."""
    return [Mail(file.stem) for file in reversed(files())]


def files():
    return sorted(FOLDER.glob("*.eml"))


class Mail:
    """A mail that was kept; raises FileNotFoundError if there is none of that name."""

    def __init__(self, name):
        self.name, self.path = name, FOLDER / f"{name}.eml"
        self.time = datetime.fromtimestamp(self.path.stat().st_mtime).astimezone()

    @cached_property
    def content(self):
        return message_from_bytes(self.path.read_bytes(), policy=policy.default)

    @property
    def subject(self):
        return self.content["Subject"]

    @property
    def to(self):
        return self.content["To"]

    @property
    def headers(self):
        return [(name, self.content[name]) for name in ("From", "To", "Cc", "Bcc", "Reply-To") if self.content[name]]

    @property
    def text(self):
        return self.body("plain")

    @property
    def html(self):
        return self.body("html")

    @property
    def attachments(self):
        return [part.get_filename() or part.get_content_type() for part in self.content.iter_attachments()]

    def body(self, kind):
        part = self.content.get_body([kind])
        try:
            return part.get_content() if part else ""
        except LookupError:  # a character set that nobody knows
            return part.get_payload(decode=True).decode("ascii", "replace")
