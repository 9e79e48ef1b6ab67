"""The page at /autodeco: one file, which nothing is fetched for."""

import functools
import importlib.resources
import re


@functools.cache
def page() -> str:
    """Return the HTML of the page."""
    return importlib.resources.files("autodeco.serve").joinpath("page.html").read_text(encoding="utf-8")


@functools.cache
def headers() -> dict[str, str]:
    """Return the headers that the page is sent with: its own policy, and what a browser takes from headers alone."""
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page())
    assert found, "the page holds its policy"
    return {
        "Content-Security-Policy": f"{found[1]}; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
