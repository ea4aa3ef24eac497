"""Seconds to render the default answers, and from a fresh clone to the first page of `make demo` with no uv on PATH.

    .venv/bin/python benchmarks/first_page.py [--cold]

Rendering is the median of 9 runs, beside its floor: starting cookiecutter and doing nothing. The first page is one run
with the package caches as they are and, with --cold, one with empty ones.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COOKIECUTTER = Path(sys.executable).with_name("cookiecutter")


def seconds(command, **options):
    """Return the seconds that a command takes."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.perf_counter() - begin


def median(command, runs=9):
    """Return the median of the seconds that a command takes; each run gets a new folder as its last argument."""
    with tempfile.TemporaryDirectory() as folder:
        return statistics.median(seconds([*command, f"{folder}/{run}"]) for run in range(runs))


def first_page(folder, environment):
    """Return the seconds from `git clone` to the first page of `make demo`."""
    begin = time.perf_counter()
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    demo = subprocess.Popen(
        ["make", "demo", "ADDRESS=127.0.0.1:8765"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while demo.poll() is None:
            try:
                urllib.request.urlopen("http://127.0.0.1:8765/").read()
                return time.perf_counter() - begin
            except OSError:
                time.sleep(0.05)
        raise SystemExit("make demo failed")
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        demo.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cold", action="store_true", help="also with empty package caches")
    cold = parser.parse_args().cold

    print(f"render the defaults       {median([COOKIECUTTER, '--no-input', str(ROOT), '--output-dir']):6.2f} s")
    print(f"  cookiecutter --version  {median([COOKIECUTTER, '--version', '--config-file']):6.2f} s")
    for caches in ("warm", "cold") if cold else ("warm",):
        with tempfile.TemporaryDirectory() as folder:
            bin = Path(folder, "bin")
            bin.mkdir()
            (bin / "python3").symlink_to(os.path.realpath(sys.executable))
            environment = os.environ | {"PATH": f"{bin}:/usr/bin:/bin"}
            if caches == "cold":
                environment |= {"XDG_CACHE_HOME": f"{folder}/cache"}
            print(f"clone to first page, {caches} {first_page(Path(folder, 'clone'), environment):6.2f} s")


if __name__ == "__main__":
    main()
