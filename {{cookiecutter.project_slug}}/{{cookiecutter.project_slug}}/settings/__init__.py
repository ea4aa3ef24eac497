"""base.py holds everywhere, deploy.py on servers, development.py on the machines of developers.

local.py, which git ignores, chooses between the two on this machine, and has what is to differ here.
"""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

LOCAL = Path(__file__).with_name("local.py")

if os.environ.get("DJANGO_SETTINGS_MODULE") == f"{__name__}.local" and not LOCAL.exists():
    raise ImproperlyConfigured(
        f"{LOCAL} does not exist: run `make setup` on your own machine, or `ln -s deploy.py {LOCAL}` on a server."
    )
