"""A load test that passes or fails: `make loadtest`; visit() says what each visitor does, over and over.

    make loadtest USERS=50 DURATION=20 P95=500 ERRORS=0.01
    make loadtest URL=https://staging.example.com ALLOW_REMOTE=1

USERS visitors come for DURATION seconds. It fails if a page takes longer than P95 milliseconds in one of 20 cases, or
if a larger share of requests than ERRORS ends in an error. Without URL, it starts a server as `make serve` does.
"""

import contextlib
import http.client
import ipaddress
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

USERS = int(os.environ.get("USERS", "50"))
DURATION = float(os.environ.get("DURATION", "20"))
P95 = float(os.environ.get("P95", "500"))
ERRORS = float(os.environ.get("ERRORS", "0.01"))
TIMEOUT = 30  # seconds; longer than the server takes to give up
START = 300  # seconds; the first start makes the database
LOG = Path(".local", "loadtest.log")


def visit(visitor):
    """Visit as people do: the pages that most of them see, and the pauses in which they read."""
    visitor.get("/")
    visitor.pause(1)
    visitor.get("/admin/login/")
    visitor.pause(1)


class Visitor(threading.Thread):
    """A visitor with cookies and a connection that is kept alive; results are (name, milliseconds, error or None)."""

    def __init__(self, url, end):
        super().__init__(daemon=True)
        connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self.connection = connect(url.hostname, url.port, timeout=TIMEOUT)
        self.origin, self.end = f"{url.scheme}://{url.netloc}", end
        self.cookies, self.results = {}, []

    def run(self):
        try:
            self.pause(1)
            while time.monotonic() < self.end:
                visit(self)
        except Exception as failure:
            self.results.append(("visit()", 0, repr(failure)))

    def pause(self, seconds):
        """Wait for about so long: not all visitors at the same moments."""
        time.sleep(random.uniform(0, 2 * seconds))

    def get(self, path, name=None):
        """Ask for a page; pages of one name, by default the path, are counted together."""
        return self.request("GET", path, name)

    def post(self, path, fields, name=None):
        """Send a form, with the CSRF token that an earlier page set as a cookie."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Referer": self.origin + path}
        headers["X-CSRFToken"] = self.cookies.get("csrftoken", "")
        return self.request("POST", path, name, urlencode(fields), headers)

    def request(self, method, path, name=None, body=None, headers=()):
        """Return the text of the answer, or "" without one; statuses from 400 on are errors."""
        cookie = {"Cookie": "; ".join(f"{key}={value}" for key, value in self.cookies.items())} if self.cookies else {}
        start, text, error = time.perf_counter(), "", None
        try:
            self.connection.request(method, path, body, cookie | dict(headers))
            response = self.connection.getresponse()
            text = response.read().decode(errors="replace")
            for line in response.headers.get_all("Set-Cookie", []):
                self.cookies |= {key: morsel.value for key, morsel in SimpleCookie(line).items()}
            error = f"status {response.status}" if response.status >= 400 else None
        except (OSError, http.client.HTTPException) as failure:
            self.connection.close()
            error = repr(failure)
        self.results.append((f"{method} {name or path}", (time.perf_counter() - start) * 1000, error))
        return text


def is_loopback(host):
    """Tell whether a name means this machine only."""
    addresses = {information[4][0] for information in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


@contextlib.contextmanager
def own_server():
    """Serve the project with the deploy settings on a free port; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        command = [sys.executable, "-m", "deploy.serve", f"127.0.0.1:{port}"]
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urlopen(f"http://127.0.0.1:{port}/livez", timeout=TIMEOUT).close()
                break
            time.sleep(0.1)
        else:
            sys.exit(f"The server did not start; {LOG} says why.")
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        server.wait(TIMEOUT)


def load(url):
    """Let the visitors come; return all their results."""
    end = time.monotonic() + DURATION
    visitors = [Visitor(urlsplit(url), end) for _ in range(USERS)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    return [result for visitor in visitors for result in visitor.results]


def report(results):
    """Print a table, and return what is worse than it may be."""
    problems = []
    print(f"{'page':<40}{'requests':>10}{'errors':>8}{'median':>10}{'p95':>10}{'worst':>10}")
    for page in dict.fromkeys(name for name, _, _ in results):
        taken = sorted(milliseconds for name, milliseconds, _ in results if name == page)
        failed = [error for name, _, error in results if name == page and error]
        median, p95 = statistics.median(taken), taken[int(len(taken) * 0.95)]
        print(f"{page:<40}{len(taken):>10}{len(failed):>8}{median:>7.0f} ms{p95:>7.0f} ms{taken[-1]:>7.0f} ms")
        if p95 > P95:
            problems.append(f"{page}: p95 is {p95:.0f} ms, more than {P95:.0f} ms")
        if len(failed) > ERRORS * len(taken):
            problems.append(f"{page}: {len(failed)} of {len(taken)} requests failed, the last with {failed[-1]}")
    return problems if results else ["no visitor came"]


def main():
    url = os.environ.get("URL")
    if url and not os.environ.get("ALLOW_REMOTE") and not is_loopback(urlsplit(url).hostname):
        sys.exit(f"{url} is not on this machine: ALLOW_REMOTE=1 says that you may load it.")
    with contextlib.nullcontext(url) if url else own_server() as url:
        problems = report(load(url))
    print("\n".join(["FAIL", *problems] if problems else ["PASS"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
