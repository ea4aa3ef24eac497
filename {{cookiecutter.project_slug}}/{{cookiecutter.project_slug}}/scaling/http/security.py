"""What Django's own security middleware leaves out, and its content security policy written out only once."""

import contextlib
from functools import partial

from django.conf import settings
from django.middleware.csp import ContentSecurityPolicyMiddleware, get_nonce
from django.shortcuts import render
from django.utils.csp import CSP, build_policy

PIECE = 64 * 1024  # bytes of a body that are read and dropped at a time


def security(get_response):
    """Refuse a request whose body is larger than MAX_BODY_SIZE bytes before any of it is read; send the policies.

    PERMISSIONS_POLICY goes out with every response that has none. SECURE_CSP is written out once for all responses
    whose page asked for no nonce; Django's own middleware deals with those that did, with CSP_BELOW, and with the
    policies that views set for themselves.
    """
    csp = ContentSecurityPolicyMiddleware(get_response)
    policy = "" if settings.SECURE_CSP_REPORT_ONLY else build_policy(settings.SECURE_CSP)
    below = {path: policies_with(sources) for path, sources in settings.CSP_BELOW.items()}

    def middleware(request):
        csp.process_request(request)
        received = request.META  # request.headers would parse all of them for the one
        length = int(received.get("CONTENT_LENGTH") or 0)
        if length > settings.MAX_BODY_SIZE:
            response = render(request, "413.html", status=413)
        else:
            response = get_response(request)
            if length and response.streaming:  # which may still read it itself
                response._resource_closers.append(partial(read_rest, request))
            elif length:
                read_rest(request)
        response.headers.setdefault("Permissions-Policy", settings.PERMISSIONS_POLICY)
        of_the_view = hasattr(response, "_csp_config") or hasattr(response, "_csp_ro_config")
        for path in () if of_the_view else below:
            if request.path_info.startswith(path):
                vars(response).update(below[path])
                of_the_view = True
                break
        if of_the_view or get_nonce(request) or not policy:
            return csp.process_response(request, response)
        response.headers.setdefault(CSP.HEADER_ENFORCE.value, policy)
        return response

    return middleware


def read_rest(request):
    """Read what the view has left of a body, and drop it.

    gunicorn closes a connection of which more than 64 kB are left unread, and nginx, which is still writing them, then
    answers 502 where the view said 403, or sent somebody to the login.
    """
    with contextlib.suppress(OSError):  # the client has left
        while request.read(PIECE):
            pass


def policies_with(sources):
    """Return the policies in use with more sources, under the names by which Django finds those of a view."""
    policies = {"_csp_config": settings.SECURE_CSP, "_csp_ro_config": settings.SECURE_CSP_REPORT_ONLY}
    return {name: allow(policy, sources) for name, policy in policies.items() if policy}


def allow(policy, sources):
    """Return a policy with more sources; inline ones are allowed only where no nonce is."""
    allowed = dict(policy)
    for directive, more in sources.items():
        found = [source for source in policy.get(directive, policy.get("default-src", [])) if source != CSP.NONE]
        if CSP.UNSAFE_INLINE in more:
            found = [source for source in found if source != CSP.NONCE]
        allowed[directive] = [*found, *more]
    return allowed
