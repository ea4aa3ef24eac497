"""Prune what the answers left empty, and say what to do next."""

from pathlib import Path

for folder in Path("{{ cookiecutter.project_slug }}").rglob("*/"):
    if not any(folder.iterdir()):
        folder.rmdir()

print(
    """
Next:

    cd {{ cookiecutter.project_slug }}
    make dev      # sets up and serves http://127.0.0.1:8000
    make test
"""
)
