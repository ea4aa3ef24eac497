"""Logs: one line of JSON for each record, and one for each request with what it cost; metrics for statsd{% if cookiecutter.use_sentry %}, and Sentry{% endif %}.

Log as usual, with logging.getLogger(__name__) and `extra`. A log that cannot be written holds up no request.
"""
