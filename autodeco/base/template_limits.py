"""Limits of chat templates, which are programs from strangers: on steps, time, depth, and what they make.

Steps are lines of a compiled template that are run, counted by Python's own tracing, in this thread and while it runs.
A list that holds itself twice, again and again, is small in memory and endless to print or compare; so what a list
holds is counted when it is made.
"""

import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_STEPS = 2_000_000
MOST_SECONDS = 5.0  # of a processor, as in autodeco-cli
MOST_MADE = 1 << 28  # characters and items of all texts and lists that a template makes on its way
MOST_TEXT = 1 << 26  # characters of one of them, or of all texts in a list
MOST_ITEMS = 1 << 18  # of a list and of those in it
WIDEST = 10_000  # of a number that a text is padded, repeated or indented by, or a list cut or filled
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "tojson", "slice", "batch"}
_SLOW = {"wordwrap", "urlize", "striptags", "title", "wordcount", "pprint"}  # Python, word for word
_LONGEST_SLOW = 1 << 20
_WIDE_FORMAT = re.compile(r"(%[^A-Za-z%]*|:[^{}]*)\d{6}")  # of % and of format()
_NESTED_FORMAT = re.compile(r"\{[^{}]*:[^{}]*\{")
_FILENAME = "<template>"  # what jinja2 calls a template that is no file


class TooMuch(ValueError):
    """A template went over a limit."""


class _Made(threading.local):
    """Characters and items made since the template of this thread began, and when its time is over."""

    total = 0
    until = math.inf


_made = _Made()


def _check_time() -> None:
    if time.thread_time() > _made.until:
        raise TooMuch("it does not come to an end")


def _counted(value: Any) -> Any:
    """``value``, whose size is counted; raises TooMuch."""
    _check_time()
    if isinstance(value, str | bytes | list | tuple | dict):
        _made.total += len(value) if isinstance(value, str | bytes) else _size_within(value)
        if len(value) > MOST_TEXT or _made.total > MOST_MADE:
            raise TooMuch("it makes too much text")
    return value


def _size_within(value: list | tuple | dict) -> int:
    """Return the items and letters that ``value`` holds, in whatever depth and however often; raises TooMuch."""
    left, items, letters = [value], 0, 0
    while left:
        one = left.pop()
        if isinstance(one, dict):
            one = [*one.keys(), *one.values()]
        items += len(one)
        if items > MOST_ITEMS or letters > MOST_TEXT:
            raise TooMuch("it makes too much text")
        for item in one:
            if isinstance(item, str | bytes):
                letters += len(item)
            elif isinstance(item, list | tuple | dict):
                left.append(item)
    return items + letters


def _sizes(values: Iterable[Any]) -> int:
    return sum(len(value) for value in values if isinstance(value, str | bytes | list | tuple))


def _check_call(name: str, of: Any, arguments: Iterable[Any]) -> None:
    """Raise TooMuch for a call that would make far more than it is given."""
    arguments = list(arguments)
    wide = any(isinstance(value, int) and abs(value) > WIDEST for value in arguments)
    if wide and name in _PADDING:
        raise TooMuch("it pads a text too far")
    if name in _SLOW and isinstance(of, str) and len(of) > _LONGEST_SLOW:
        raise TooMuch("it makes too much text")
    if name in ("replace", "join") and isinstance(of, str):
        longest = max((len(value) for value in arguments[1:3] if isinstance(value, str)), default=0)
        if len(of) * (1 + longest) > MOST_MADE:
            raise TooMuch("it makes too much text")
    if name in ("%", "format", "format_map") and isinstance(of, str):
        nested = "*" in of if name == "%" else _NESTED_FORMAT.search(of)
        if _WIDE_FORMAT.search(of) or (wide and nested):
            raise TooMuch("it pads a text too far")


def limited_filter(name: str, function: Callable) -> Callable:
    """Return the filter ``function``, called ``name``, with limits on what it makes."""

    @wraps(function)
    def limited(*args, **kwargs):
        values = [*args, *kwargs.values()]
        of = next((value for value in values if isinstance(value, str)), None)
        _check_call(name, of, values)
        return _counted(function(*args, **kwargs))

    return limited


class _CountingCode(CodeGenerator):
    """Counts what the lists, tuples and tables hold that a template writes out."""

    def _counting(self, visit: Callable, node: nodes.Expr, frame: Frame) -> None:
        self.write("environment.counted(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._counting(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._counting(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._counting(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)


class _PlainNamespace(Namespace):
    """One that does not print what it holds, which may be itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of jinja2, in which nothing that a template computes grows without end."""

    code_generator_class = _CountingCode
    counted = staticmethod(_counted)
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **settings):
        super().__init__(**settings)
        del self.globals["lipsum"]  # as much text as it is asked for
        self.globals["namespace"] = _PlainNamespace
        for name, function in list(self.filters.items()):
            self.filters[name] = limited_filter(name, function)

    def call_binop(self, context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and _sizes((left, right)) > MOST_TEXT:
            raise TooMuch("it makes too much text")
        if operator in ("*", "**") and all(isinstance(value, int) for value in (left, right)):
            bits = left.bit_length() * (right if operator == "**" and right > 0 else 1) + right.bit_length()
            if bits > 10 * WIDEST:
                raise TooMuch("it computes too large a number")
        elif (
            operator == "*"
            and _sizes((left, right)) * max((value for value in (left, right) if isinstance(value, int)), default=1)
            > MOST_TEXT
        ):
            raise TooMuch("it makes too much text")
        if operator == "%":
            _check_call("%", left, right if isinstance(right, tuple) else [right])
        return _counted(super().call_binop(context, operator, left, right))

    def call(self, context, called, *args, **kwargs) -> Any:
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str | bytes | list | tuple | dict):
            _check_call(getattr(called, "__name__", ""), owner, [*args, *kwargs.values()])
        return _counted(super().call(context, called, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable | None:
        made = super().wrap_str_format(value)
        if made is None:
            return None

        def limited(*args, **kwargs):
            _check_call("format", value.__self__, [*args, *kwargs.values()])
            return _counted(made(*args, **kwargs))

        return limited

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the parts that a template writes."""
        kept, size = [], 0
        for part in parts:
            kept.append(part)
            size += len(part)
            if size > MOST_TEXT:
                raise TooMuch("it makes too much text")
        return _counted("".join(kept))


def limited_joins(template: jinja2.Template) -> jinja2.Template:
    """Return ``template``, in which ``~`` counts what it makes too."""
    names = template.root_render_func.__globals__
    for name in ("str_join", "markup_join"):
        if name in names:
            join = names[name]
            names[name] = lambda parts, join=join: _counted(join(_within(list(parts))))
    return template


def _within(parts: list) -> list:
    if _sizes(parts) > MOST_TEXT:
        raise TooMuch("it makes too much text")
    return parts


def limited_render(template: jinja2.Template, values: dict[str, Any]) -> str:
    """Return what ``template`` makes of ``values``; raises TooMuch, and whatever the template does."""
    steps = 0

    def count(frame, event, argument):
        nonlocal steps
        steps += 1
        if steps > MOST_STEPS:
            raise TooMuch("it does not come to an end")
        if steps % 64 == 0:
            _check_time()
        return count

    def trace(frame, event, argument):
        return count if frame.f_code.co_filename == _FILENAME else None

    before, _made.total, _made.until = sys.gettrace(), 0, time.thread_time() + MOST_SECONDS
    sys.settrace(trace)
    try:
        return template.render(values)
    finally:
        sys.settrace(before)
        _made.until = math.inf
