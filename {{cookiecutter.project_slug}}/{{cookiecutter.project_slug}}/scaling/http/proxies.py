"""The client's address and scheme, as the proxies named in TRUSTED_PROXIES report them; anybody else's word is dropped.

The peer of a Unix socket has no address. It is trusted, because the permissions of the socket say who may connect.
"""

from functools import lru_cache
from ipaddress import ip_address, ip_network

from django.conf import settings


def trusted_proxies(get_response):
    """Set REMOTE_ADDR to the client's address, and remove every forwarding header that a client could have forged."""
    networks = [ip_network(network, strict=False) for network in settings.TRUSTED_PROXIES]

    def is_proxy(address):
        return address is not None and any(address in network for network in networks)

    @lru_cache(1024)  # a visitor's requests come many in a row
    def client_of(peer, forwarded_for):
        """Return the client's address if the peer is a proxy, and None if it is none."""
        return client_address(peer, forwarded_for, is_proxy) if not peer or is_proxy(parse(peer)) else None

    def middleware(request):
        peer = request.META.get("REMOTE_ADDR", "")
        forwarded_for = request.META.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = request.META.pop("HTTP_X_FORWARDED_PROTO", "")
        if (client := client_of(peer, forwarded_for)) is not None:
            request.META["REMOTE_ADDR"] = client
            # The last value is the nearest proxy's own; those before it came with the request.
            if scheme := scheme.rpartition(",")[2].strip():
                request.META["HTTP_X_FORWARDED_PROTO"] = scheme
        return get_response(request)

    return middleware


def client_address(peer, forwarded_for, is_proxy):
    """Return the last address of X-Forwarded-For that is no proxy's; those to its left anybody can have written."""
    client = parse(peer) or ""
    for entry in reversed(forwarded_for.split(",")):
        address = parse(entry)
        if address is None:
            break
        client = address
        if not is_proxy(address):
            break
    return str(client)


def parse(entry):
    """Return the address in 192.0.2.1, 192.0.2.1:80, 2001:db8::1 or [2001:db8::1]:80, or None if there is none."""
    host = entry.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
