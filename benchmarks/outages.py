"""What visitors see while servers fail, and for how long: runs the tests of outages, and writes what they saw.

    .venv/bin/python benchmarks/outages.py [--output docs/outages.md]

The tests use the fixture `matrix` of tests/conftest.py, one at a time. Each of them fails if more is seen than is
promised; then nothing is written. Needs redis-server or valkey-server on PATH.
"""

import argparse
import datetime
import sys
from pathlib import Path

import pytest
from peers import machine
from throughput import ROOT

TEXT = """# What visitors see while servers fail

Real servers are stopped, refused, cut off or slowed down for some seconds, while visitors ask as fast as they can for
pages that need them; black-holed is a network that swallows packets. Counted is until a moment after the end. Other
pages, which the tests ask for as well, are served throughout. "everything on" is the project with all options, replicas
and Celery.

`make outages` ran the tests and wrote this table, on {machine}, {date}.
The project's `docs/operations.md` says what lies behind it.

| what fails | what visitors see | longest answer | all is well again after |
|---|---|---|---|
{rows}
"""


class Outages:
    """A plugin that leaves out all other tests, and collects the rows."""

    def __init__(self):
        self.rows = []

    def pytest_collection_modifyitems(self, config, items):
        others = [item for item in items if "matrix" not in item.fixturenames]
        items[:] = [item for item in items if "matrix" in item.fixturenames]
        config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.rows += [row for name, row in report.user_properties if name == "Outages"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "outages.md")
    output = parser.parse_args().output
    outages = Outages()
    status = pytest.main(["--numprocesses=0", "--quiet", str(ROOT / "tests")], plugins=[outages])
    if status:
        sys.exit(status)
    rows = "\n".join(sorted(outages.rows, key=lambda row: row.split(":")[0]))
    output.write_text(TEXT.format(machine=machine(), date=datetime.date.today(), rows=rows), encoding="utf-8")
    print(f"\nwrote {output}")


if __name__ == "__main__":
    main()
