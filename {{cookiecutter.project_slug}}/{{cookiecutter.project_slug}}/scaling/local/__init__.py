"""For development machines only: a PostgreSQL of the project's own{% if cookiecutter.use_celery %}, and `make dev` with its Celery worker{% endif %}.

settings/local.py and the tests call postgres.start(); nothing that is deployed imports this.
"""
