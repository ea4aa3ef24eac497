from functools import partial

from django.template import Library, Node, TemplateSyntaxError, Variable, VariableDoesNotExist

from ..cache import cached, flush_requested

register = Library()


class KnownVariable(Variable):
    """A variable whose names all exist: a misspelt one would be the same for everybody, and so would the fragment."""

    def resolve(self, context):
        try:
            return super().resolve(context)
        except VariableDoesNotExist as error:
            name, holder = error.params
            if may_be_missing(name, holder):
                raise
            raise TemplateSyntaxError(f"fragment varies on {self.var}, and there is no {name}") from None


def may_be_missing(name, holder):
    """Tell whether it is a value that is missing: a key, an index, what would belong to a row that there is not."""
    return holder is None or hasattr(holder, "keys") or name.isdigit()


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
    expressions = [parser.compile_filter(argument) for argument in vary_on]
    for expression in expressions:
        if expression.is_var:
            expression.var = KnownVariable(expression.var.var)
    return FragmentNode(nodelist, parser.compile_filter(ttl), name.strip("\"'"), expressions)
