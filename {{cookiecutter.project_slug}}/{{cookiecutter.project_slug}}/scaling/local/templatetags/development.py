from django.template import Library

from ..status import statuses

register = Library()


@register.inclusion_tag("dev/parts.html")
def parts():
    """Show how the parts of the project are."""
    return {"statuses": statuses()}
