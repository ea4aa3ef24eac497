import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import MailerDoesNotExist, send_mail

from {{ cookiecutter.project_slug }}.scaling import timeouts
from {{ cookiecutter.project_slug }}.scaling.mail import mailer


@pytest.mark.parametrize(
    ("url", "host", "port", "use_tls", "use_ssl"),
    [
        ("smtp+tls://ada:p%40ss@mail.example", "mail.example", 587, True, False),
        ("smtps://ada:p%40ss@mail.example", "mail.example", 465, False, True),
        ("smtp://ada:p%40ss@[::1]:1025", "::1", 1025, False, False),
    ],
)
def test_mailer(settings, url, host, port, use_tls, use_ssl):
    settings.MAILERS = {"default": mailer(url)}

    connection = mail.mailers.default

    assert (connection.host, connection.port) == (host, port)
    assert (connection.username, connection.password) == ("ada", "p@ss")
    assert (connection.use_tls, connection.use_ssl) == (use_tls, use_ssl)
    assert connection.timeout == timeouts.OUTGOING


def test_provider_whose_package_is_missing(monkeypatch):
    monkeypatch.setattr("{{ cookiecutter.project_slug }}.scaling.mail.find_spec", lambda name: None)

    with pytest.raises(ImproperlyConfigured, match=r"postmark needs django-anymail, .* add it to `dependencies`"):
        mailer("anymail+postmark://?server_token=token")


def test_mail_without_a_server_is_an_error(settings):
    settings.MAILERS = {}

    with pytest.raises(MailerDoesNotExist):
        send_mail("Subject", "Text", None, ["ada@example.com"])


def test_mail_of_tests_is_in_the_mailbox(mailoutbox):
    send_mail("Subject", "Text", None, ["ada@example.com"])

    assert [message.subject for message in mailoutbox] == ["Subject"]
