"""What Django's own security middlewares leave out."""

from django.conf import settings
from django.http import HttpResponse


def security(get_response):
    """Refuse a request whose body is larger than MAX_BODY_SIZE before any of it is read; send PERMISSIONS_POLICY."""

    def middleware(request):
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.MAX_BODY_SIZE:
            return HttpResponse("Request body too large\n", status=413, content_type="text/plain")
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", settings.PERMISSIONS_POLICY)
        return response

    return middleware
