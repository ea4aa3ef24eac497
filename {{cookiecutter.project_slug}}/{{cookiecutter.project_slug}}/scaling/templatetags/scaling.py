from functools import partial

from django.template import Library, Node, TemplateSyntaxError

from ..cache import cached, flush_requested

register = Library()


class FragmentNode(Node):
    def __init__(self, nodelist, ttl, name, vary_on):
        self.nodelist, self.ttl, self.name, self.vary_on = nodelist, ttl, name, vary_on

    def render(self, context):
        ttl = self.ttl.resolve(context)
        if not isinstance(ttl, (int, float)):
            raise TemplateSyntaxError(f"fragment {self.name!r}: the TTL {self.ttl} is {ttl!r}, not a number of seconds")
        return cached(
            f"fragment {self.name}",
            ttl,
            partial(self.nodelist.render, context),
            *(variable.resolve(context) for variable in self.vary_on),
            flush="request" in context and flush_requested(context["request"]),
        )


@register.tag
def fragment(parser, token):
    """Cache a part of a template as Django's `cache` tag does, but with cached() of scaling/cache/__init__.py.

    The TTL in seconds, a name, which is no variable even without quotes, and what the part varies on:
{% raw %}    {% fragment LONG_TTL "sidebar" article %}…{% endfragment %}{% endraw %}.
    """
    arguments = token.split_contents()[1:]
    if len(arguments) < 2:
        raise TemplateSyntaxError("fragment takes a TTL in seconds, a name, and what the part varies on")
    ttl, name, *vary_on = arguments
    nodelist = parser.parse(["endfragment"])
    parser.delete_first_token()
    compiled = parser.compile_filter
    return FragmentNode(nodelist, compiled(ttl), name.strip("\"'"), [compiled(variable) for variable in vary_on])
