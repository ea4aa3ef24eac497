"""Say what to do next."""

print(
    """
Next:

    cd {{ cookiecutter.project_slug }}
    make dev      # sets up and serves http://127.0.0.1:8000
    make test
"""
)
