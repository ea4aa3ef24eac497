"""Leave out the folders of options that were not chosen, and say what to do next."""

from pathlib import Path

for top in ("{{ cookiecutter.project_slug }}", "tests"):
    for folder in sorted(Path(top).rglob("*"), reverse=True):  # the inner ones first
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

print(
    """
Next:

    cd {{ cookiecutter.project_slug }}
    make dev      # sets up and serves http://127.0.0.1:8000
    make test
"""
)
