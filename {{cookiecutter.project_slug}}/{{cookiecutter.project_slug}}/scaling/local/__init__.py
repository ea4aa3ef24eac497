"""For development machines only: a PostgreSQL of the project's own{% if cookiecutter.use_celery %}, and the processes of `make dev`{% endif %}.

settings/local.py and the tests call postgres.start(); nothing that is deployed imports this.
"""
