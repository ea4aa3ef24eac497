"""What keeps the site up under load, a room for each thing that it serves; docs/architecture.md is the map.

Imports go one way, a room imports only from those before it: timeouts, logs/, db/, cache/,
{% if cookiecutter.use_celery %}
files/ and tasks/ (Celery), http/, checks, and what Django looks for: apps, models, management/, templatetags/.
{% else %}
files/, http/, checks, and what Django looks for: apps, models, management/, templatetags/.
{% endif %}
local/ is for development machines only, and may import all of them.
"""
