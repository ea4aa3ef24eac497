"""What Django's own security middleware leaves out."""

from django.conf import settings
from django.http import HttpResponse


def body_limit(get_response):
    """Refuse a request whose body is larger than MAX_BODY_SIZE bytes before any of it is read."""

    def middleware(request):
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.MAX_BODY_SIZE:
            return HttpResponse("Request body too large\n", status=413, content_type="text/plain")
        return get_response(request)

    return middleware


def permissions_policy(get_response):
    """Send PERMISSIONS_POLICY with every response that has none."""

    def middleware(request):
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", settings.PERMISSIONS_POLICY)
        return response

    return middleware
