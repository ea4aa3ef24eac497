"""The template tag `fragment`, which caches a part of a page."""

from functools import partial

from django.template import Library, Node, NodeList, TemplateSyntaxError, Variable, VariableDoesNotExist

from ..cache import cached_many, flush_requested, make_key

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
    child_nodelists = ("nodelist", "nodelist_empty")

    def __init__(self, ttl, name, vary_on, loop, nodelist, nodelist_empty):
        self.ttl, self.name, self.vary_on, self.loop = ttl, name, vary_on, loop
        self.nodelist, self.nodelist_empty = nodelist, nodelist_empty

    def render(self, context):
        ttl = self.ttl.resolve(context)
        if not isinstance(ttl, (int, float)):
            raise TemplateSyntaxError(f"fragment {self.name!r}: the TTL {self.ttl} is {ttl!r}, not a number of seconds")
        scopes = [{}]
        if self.loop:
            variable, rows = self.loop
            scopes = [{variable: row} for row in rows.resolve(context) or ()]
        keys = [self.key(context, scope) for scope in scopes]
        parts = cached_many(
            ttl,
            {key: partial(self.render_part, context, scope) for key, scope in zip(keys, scopes, strict=True)},
            flush="request" in context and flush_requested(context["request"]),
        )
        return "".join(parts[key] for key in keys) if keys else self.nodelist_empty.render(context)

    def key(self, context, scope):
        with context.push(scope):
            return make_key(f"fragment {self.name}", *(variable.resolve(context) for variable in self.vary_on))

    def render_part(self, context, scope):
        with context.push(scope):
            return self.nodelist.render(context)


@register.tag
def fragment(parser, token):
    """Cache a part of a template as Django's `cache` tag does, but with cached() of scaling/cache/__init__.py.

    The TTL in seconds, a name, which is no variable even without quotes, and what the part varies on:
{% raw %}    {% fragment LONG_TTL "sidebar" article %}…{% endfragment %}{% endraw %}.

    With a loop at the end, there is a part for each member of a list, and the cache is asked for all of them at once:
{% raw %}    {% fragment LONG_TTL "row" article for article in articles %}…{% empty %}…{% endfragment %}{% endraw %}.
    There is no `forloop`: a part is the same wherever its member stands.
    """
    arguments = token.split_contents()[1:]
    arguments, loop = (arguments[:-4], arguments[-4:]) if arguments[-4::2] == ["for", "in"] else (arguments, [])
    if len(arguments) < 2 or "for" in arguments:
        raise TemplateSyntaxError(
            "fragment takes a TTL in seconds, a name, what the part varies on, and perhaps: for article in articles"
        )
    ttl, name, *vary_on = arguments
    nodelist = parser.parse(["empty", "endfragment"] if loop else ["endfragment"])
    nodelist_empty = NodeList()
    if parser.next_token().contents == "empty":
        nodelist_empty = parser.parse(["endfragment"])
        parser.delete_first_token()
    expressions = [known_variables(parser.compile_filter(argument)) for argument in vary_on]
    if loop:
        _, variable, _, rows = loop
        if not any(expression.is_var and variable in (expression.var.lookups or ())[:1] for expression in expressions):
            raise TemplateSyntaxError(f"fragment {name} does not vary on {variable}: all parts would be the same")
        loop = variable, known_variables(parser.compile_filter(rows))
    return FragmentNode(parser.compile_filter(ttl), name.strip("\"'"), expressions, loop, nodelist, nodelist_empty)


def known_variables(expression):
    if expression.is_var:
        expression.var = KnownVariable(expression.var.var)
    return expression
