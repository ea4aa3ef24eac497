"""The pages below /dev/: how the parts are, samples, mails, documentation; and what the CSP of a page refused."""

import json
import logging
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpResponse, HttpResponseBadRequest, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.csp import CSP
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.csp import csp_override
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import mail as mailbox
from .forms import SampleForm

# Of a mail: everything that mail programs show, and no scripts. Its links open in a tab, where there is no sandbox.
CSP_OF_MAIL = {
    "default-src": [CSP.NONE],
    "img-src": ["*", "data:"],
    "style-src": ["*", CSP.UNSAFE_INLINE],
    "font-src": ["*", "data:"],
    "sandbox": ["allow-popups", "allow-popups-to-escape-sandbox"],
    "frame-ancestors": [CSP.SELF],
}

MAX_REPORT = 16_000  # bytes

logger = logging.getLogger(__name__)


def status(request):
    return render(request, "dev/status.html")


def samples(request):
    """Show what site.css styles; the form can be sent."""
    form = SampleForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        messages.success(request, "The form is valid.")
        return redirect("dev:samples")
    wrong = SampleForm({"wrong-email": "nobody", "wrong-nights": "0"}, prefix="wrong")
    page = Paginator(range(95), 10).get_page(request.GET.get("page"))
    return render(request, "dev/samples.html", {"form": form, "wrong": wrong, "page_obj": page})


def mails(request):
    return render(request, "dev/mails.html", {"mails": mailbox.newest(), "folder": mailbox.FOLDER})


def mail(request, name):
    return render(request, "dev/mail.html", {"mail": mail_or_404(name)})


@xframe_options_exempt
@csp_override(CSP_OF_MAIL)
def mail_html(request, name):
    """Show the HTML of a mail as it is; as a stream, which the debug toolbar leaves alone."""
    return StreamingHttpResponse(['<!doctype html><base target="_blank">', mail_or_404(name).html])


def mail_or_404(name):
    try:
        return mailbox.Mail(name)
    except FileNotFoundError:
        raise Http404(f"{name} is not in {mailbox.FOLDER}") from None


def document(request, name):
    """Show a file of the documentation, as it is."""
    for file in [*settings.BASE_DIR.glob("README.md"), *settings.BASE_DIR.glob("docs/*.md")]:
        if file.name == name:
            return FileResponse(file.open("rb"), content_type="text/plain; charset=utf-8")
    raise Http404(f"{name} is not in docs/")


@csrf_exempt
@require_POST
def csp_report(request):
    """Log what a browser refused, in one line."""
    try:
        report = json.loads(request.read(MAX_REPORT))["csp-report"]
        directive, blocked = report["effective-directive"], report["blocked-uri"]
        page, source = (without_host(report.get(key) or "", request) for key in ("document-uri", "source-file"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return HttpResponseBadRequest("This is no report of a browser.")
    line = f"Content Security Policy: {directive} refuses {blocked or 'inline'} on {page}"
    if source:
        line += f", from {source}:{report.get('line-number', 0)}"
    logger.warning(" ".join(line.split()))
    return HttpResponse(status=204)


def without_host(url, request):
    """Return the path of an address of the site, and any other as it is."""
    parts = urlsplit(url)
    return parts.path if parts.netloc == request.get_host() else url
