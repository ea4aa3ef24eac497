"""Merge another version of the template into the project at hand.

`make update` in a project clones the template and runs this file of the clone, so that it is always the newest. It
makes an environment of the clone's own, of exactly what requirements.txt beside it names, and goes on in updates/.
"""

import os
import subprocess
import sys
from pathlib import Path

PYTHON_VERSIONS = ">=3.12,<3.15"

HERE = Path(__file__).resolve().parent


def python():
    """Return the Python of an environment with the locked requirements, made where there is none."""
    folder = HERE / ".venv"
    program = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "whole").exists():
        uv = os.environ.get("UV", "uv")
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        requirements = HERE / "requirements.txt"
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", PYTHON_VERSIONS, folder],
            [uv, "pip", "sync", "--quiet", "--python", program, "--require-hashes", "--no-build", requirements],
        ):
            if subprocess.run(command, env=environment).returncode:
                sys.exit("Nothing was changed: uv could not install what the update needs, for the reason above.")
        (folder / "whole").touch()
    return program


if __name__ == "__main__":
    try:
        command = [str(python()), "-I", str(HERE / "updates"), *sys.argv[1:]]
    except KeyboardInterrupt:
        sys.exit(130)
    if os.name != "nt":
        os.execv(command[0], command)  # in place of this process, which would kill it soon after Ctrl-C
    sys.exit(subprocess.run(command).returncode)
