"""A page that nginx keeps beside the same page made anew: requests per second through the same nginx.

    .venv/bin/python benchmarks/public_pages.py [--seconds 1] [--rounds 7]

The project with the default answers and deploy settings, on gunicorn as in throughput.py (1 worker, 4 threads), behind
one process of nginx with the project's nginx.conf, over plain HTTP as behind a load balancer that ends TLS, with no
limit of requests. Load and pages are those of throughput.py: plain text, and 20 rows from one query. The ways take
turns, and the ratio is the median of those of the rounds. Compressed is what browsers ask for: nginx compresses each
time it sends. What a server that does nothing reaches with this load is the ceiling. Needs nginx and openssl.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import throughput
from throughput import HOST, build, ceiling, cpu, free_port, path_of

VIEWS = ("plain", "20 rows")
COMPRESSED = ["Accept-Encoding: gzip, br"]
URLS = """
from my_project.scaling.http.public import public

urlpatterns += [path("public/plain/", public(3600)(plain)), path("public/20-rows/", public(3600)(rows))]
"""


class Nginx:
    """nginx before a site, as its project has configured it."""

    def __init__(self, folder, site):
        self.site, self.port, self.figures = site, free_port(), {}
        (folder / "nginx").mkdir()
        folder = folder / "nginx"
        files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}", *files]
        subprocess.run(command, check=True, capture_output=True)
        text = (site.folder / "deploy" / "nginx.conf").read_text()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        for original, replacement in {
            "user nginx;": "",
            "worker_processes auto;": "worker_processes 1;",
            "http {": "http { " + " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds),
            "/run/nginx.pid": f"{folder}/pid",
            "/var/log/nginx/": f"{folder}/",
            "/var/cache/nginx-my_project": f"{folder}/pages",
            "unix:/run/my_project/web1.sock": f"127.0.0.1:{site.port}",
            "unix:/run/my_project/web2.sock": f"127.0.0.1:{site.port}",
            "/etc/letsencrypt/live/example.com/": f"{folder}/",
            "listen [::]": "# listen [::]",
            "listen 8090": f"listen 127.0.0.1:{free_port()}",
            "listen 80": f"listen 127.0.0.1:{self.port}",
            "listen 443": f"listen 127.0.0.1:{free_port()}",
            "127.0.0.1:8090": f"127.0.0.1:{free_port()}",
            "# set_real_ip_from 10.0.0.0/8": "set_real_ip_from 127.0.0.1",
            "# 10.0.0.0/8 1;": "127.0.0.1 1;",
            "rate=20r/s": "rate=1000000r/s",
            "keepalive_timeout 75s;": "keepalive_timeout 75s; keepalive_requests 1000000;",
        }.items():
            if original not in text:
                sys.exit(f"{original} is not in nginx.conf any more")
            text = text.replace(original, replacement)
        (folder / "nginx.conf").write_text(text)
        self.process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-g", "daemon off;"])
        time.sleep(1)

    def cpu(self):
        return sum(map(cpu, psutil.Process(self.process.pid).children()))

    def measure(self, view, way, seconds):
        """Note requests per second, and the CPU time of a request in nginx and in the worker."""
        path = path_of(view) if way == "made anew" else f"/public{path_of(view)}"
        headers = COMPRESSED if way == "compressed" else []
        before = self.cpu(), self.site.cpu()
        count, took, _ = self.site.load(view, seconds=seconds, port=self.port, path=path, headers=headers)
        costs = [
            (after - start) / count * 1e6 for start, after in zip(before, (self.cpu(), self.site.cpu()), strict=True)
        ]
        self.figures.setdefault((view, way), []).append((count / took, *costs))

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1, help="of each page in each round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    throughput.URLS += URLS
    folder = Path(tempfile.mkdtemp(prefix="public-pages-"))
    folder.chmod(0o755)  # where root runs this, PostgreSQL and nginx are other users'
    nginx = site = None
    try:
        for site, *_ in build(folder):
            site.prepare()
            site.start()
            nginx = Nginx(folder, site)
            for _ in range(options.rounds):
                for view in VIEWS:
                    for way in ("made anew", "kept", "compressed"):
                        nginx.measure(view, way, options.seconds)
            print(f"{'requests/s':<28}{'':>10}{'ratio':>8}{'CPU of nginx':>16}{'of the worker':>16}")
            for (view, way), figures in nginx.figures.items():
                anew = nginx.figures[view, "made anew"]
                ratio = statistics.median(kept[0] / made[0] for kept, made in zip(figures, anew, strict=True))
                rate, *costs = map(statistics.median, zip(*figures, strict=True))
                print(
                    f"  {f'{view}, {way}':<26}{rate:>10.0f}{ratio:>8.1f}"
                    + "".join(f"{cost:>13.0f} µs" for cost in costs)
                )
            print(f"the load generator's ceiling is {ceiling(options.seconds):.0f} requests/s")
    finally:
        if nginx:
            nginx.stop()
        if site and hasattr(site, "process"):
            site.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
