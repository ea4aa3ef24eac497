"""`manage.py migrate` for `make setup` and `make serve`, one at a time: two at once on a new database fail."""

import fcntl
import subprocess
import sys
from pathlib import Path

LOCK = Path(".local", "migrate.lock")

if __name__ == "__main__":
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sys.exit(subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], check=False).returncode)
