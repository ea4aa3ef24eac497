"""The pins as JSON, for everybody: it looks at no session, so a CDN may keep it."""

from django import forms
from django.conf import settings
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_safe

from ..scaling.http.public import public
from .models import Pin

PAGE = 20


class ListForm(forms.Form):
    before = forms.IntegerField(required=False)


def as_json(pin):
    return {
        "id": pin.pk,
        "title": pin.title,
        "text": pin.text,
        "picture": pin.picture.url,
        "board": {"id": pin.board.pk, "title": pin.board.title},
        "created": pin.created,
        "url": pin.get_absolute_url(),
    }


@require_safe
@public(settings.SHORT_TTL)
def pin_list(request):
    """The newest pins; `next` leads to older ones, and costs as much however far one goes."""
    form = ListForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    pins = Pin.objects.select_related("board").order_by("-pk")
    if before := form.cleaned_data["before"]:
        pins = pins.filter(pk__lt=before)
    found = list(pins[: PAGE + 1])
    page = found[:PAGE]
    following = reverse("pins:api", query={"before": page[-1].pk}) if len(found) > PAGE else None
    return JsonResponse({"pins": [as_json(pin) for pin in page], "next": following})


@require_safe
@public(settings.SHORT_TTL)
def pin_detail(request, pk):
    return JsonResponse(as_json(get_object_or_404(Pin.objects.select_related("board"), pk=pk)))
