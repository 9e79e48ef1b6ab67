"""The rules that all grammars of JSON have in common, and how texts are written in GBNF."""

HEX = "[0-9a-fA-F]"
PLAIN = r'[^"\\\x7F\x00-\x1F]'  # a letter of a string that needs no escape
PRIMITIVES = {
    "ws": '" "?',
    "escape": rf'"\\" (["\\/bfnrt] | "u" ([0-9a-cA-CeEfF] {HEX}{{3}} | [dD] [0-7] {HEX}{{2}}))',
    "char": f"{PLAIN} | escape",
    "string": '"\\"" char* "\\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "member": 'string ws ":" ws value ws',
    "object": '"{" ws (member ("," ws member)*)? "}"',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
}
DATE = '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
TIME = (
    '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? '
    '("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
)
FORMATS = {
    "date": DATE,
    "time": TIME,
    "date-time": f'{DATE} "T" {TIME}',
    "uuid": ' "-" '.join(f"{HEX}{{{digits}}}" for digits in (8, 4, 4, 4, 12)),
}


def literal(text: str) -> str:
    """Return ``text`` itself as an expression."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def repeated(item: str, least: int, most: int | None, separator: str = "") -> str:
    """Return ``item`` between ``least`` and ``most`` times (None: any number), with ``separator`` between two."""
    if most == 0:
        return '""'
    if not separator:
        return f"({item}){_times(least, most)}"
    rest = f"({separator} {item}){_times(max(0, least - 1), None if most is None else most - 1)}"
    return f"({item} {rest})" + ("?" if least == 0 else "")


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"
