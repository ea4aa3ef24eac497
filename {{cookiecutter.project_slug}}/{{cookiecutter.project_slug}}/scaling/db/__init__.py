"""PostgreSQL: connections that fail fast when it does, and queries that stay small when tables grow.

postgresql.database() makes an entry of DATABASES. Derive models from models.TimestampedModel; for large tables there
are pagination.UncountedPaginator, pagination.estimated_count() and export.csv_response().
{% if cookiecutter.use_replica %}
Pages are read from replicas that are fresh, unless replicas.reading_from_primary() says otherwise.
{% endif %}
"""
