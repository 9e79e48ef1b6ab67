"""Chat templates that do not end, nest without end, make too much text, or are broken."""

from autodeco.export.layout import open_layout

GROWING = "{%% set n = namespace(x=%s) %%}{%% for i in range(100) %%}%s{%% endfor %%}{{ n.x }}"

ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "macro": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "two macros": "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
    "text": GROWING % ("'aaaa'", "{% set n.x = n.x ~ n.x %}"),
    "sum": GROWING % ("'aaaa'", "{% set n.x = n.x + n.x %}"),
    "list": GROWING % ("[1]", "{% set n.x = n.x + n.x %}"),
    "replace": GROWING % ("'aaaa'", "{% set n.x = n.x.replace('a', 'aa') %}"),
    "output": "{% for i in range(99999) %}{% for m in messages %}{{ '" + "a" * 5000 + "' }}{% endfor %}{% endfor %}",
    "brackets": "{{" + "(" * 50_000 + "1" + ")" * 50_000 + "}}",
    "blocks": "{% if 1 %}" * 20_000 + "{% endif %}" * 20_000,
}

# of Python's jinja2 alone
PYTHON = {
    "block set": GROWING % ("'aaaa'", "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"),
    "replace filter": GROWING % ("'aaaa'", "{% set n.x = n.x|replace('a', 'aa') %}"),
    "repeated": "{{ 'a' * 10**9 }}",
    "power": "{{ 9**(9**9) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10**9, 1) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "nested format": "{{ '{:>{}}'.format(1, 10**9) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "tojson": "{{ [1]|tojson(indent=10**9) }}",
    "mapped": "{{ range(99999)|map('center', 9999)|list|length }}",
    "joined": "{{ ('a' * 9999999).join([''] * 9999) }}",
    "recursive loop": "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "slices": "{{ messages|slice(10**9)|list }}",
    "batch": "{{ messages|batch(10**9, 'x')|list }}",
    "searched": "{% set x = 'a' * 9999999 %}{% for i in range(99999) %}{% if 'b' in x %}{% endif %}{% endfor %}",
    "sorted": "{% set x = range(99999)|list %}{% for i in range(99999) %}{{ x|sort(reverse=true)|length }}{% endfor %}",
    "wrapped": "{{ ('a ' * 9999999)|wordwrap(1) }}",
}

# small in memory, and endless to print or to compare
DOUBLED = {
    "list": (GROWING % ("[1]", "{% set n.x = [n.x, n.x] %}"), "it makes too much text"),
    "list as JSON": ((GROWING % ("[1]", "{% set n.x = [n.x, n.x] %}")).replace("n.x }}", "n.x|tojson }}"), "it makes"),
    "tuple": (GROWING % ("[1]", "{% set n.x = (n.x, n.x) %}"), "it makes too much text"),
    "table": (GROWING % ("[1]", "{% set n.x = {'a': n.x, 'b': n.x} %}"), "it makes too much text"),
    "dict": (GROWING % ("[1]", "{% set n.x = dict(a=n.x, b=n.x) %}"), "it makes too much text"),
    "zipped": (GROWING % ("[1]", "{% set n.x = [n.x]|list + [n.x]|list %}"), "it makes too much text"),
    "of long texts": ("{% set x = 'a' * 999999 %}{{ [x] * 9999 }}", "it makes too much text"),
    "compared": (
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(100) %}{% set n.a = [n.a, n.a] %}"
        "{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
        "it makes too much text",
    ),
}

BROKEN = {
    "no condition": "{% if %}",
    "no end": "{% for m in messages %}",
    "half": "{{ messages",
    "unknown tag": "{% nothing %}",
    "unknown filter": "{{ 1|nothing }}",
    "undefined": "{{ nothing.at.all }}",
    "division": "{{ 1 / 0 }}",
}

# (source, how the reason begins that a chat with it is refused for, here and where Python is not)
REFUSED = {
    "loops": (ENDLESS["loops"], "it does not come to an end"),
    "macro": (ENDLESS["macro"], "it goes too deep"),
    "two macros": (ENDLESS["two macros"], "it goes too deep"),
    "text": (ENDLESS["text"], "it makes too much text"),
    "no reason": ("{{ raise_exception('') }}", "it gives no reason"),
    "a reason": ("{{ raise_exception('users only') }}", "users only"),
    "broken": ("{% if %}", ""),
    "half": ("{{ messages", ""),
}


def with_template(path, model, source: str):
    """A copy of ``model`` with another chat template, of the same length in the file."""
    own = open_layout(model).gguf.get("tokenizer.chat_template").encode()
    assert len(source) <= len(own) - 4
    filled = source + "{#" + "#}".rjust(len(own) - len(source) - 2)
    path.write_bytes(model.read_bytes().replace(own, filled.encode(), 1))
    return path
