"""Chat templates are programs from strangers: each ends soon, in little memory, with a text or with one line."""

import json
import re
import resource
import subprocess
import sys

import pytest

import autodeco
from autodeco.base import template_limits
from autodeco.base.chat_template import ChatTemplate, Renderer
from autodeco.errors import InputError
from builders.compiled import compiled
from builders.hostile_templates import BROKEN, DOUBLED, ENDLESS, PYTHON, REFUSED, with_template

MESSAGES = [{"role": "user", "content": " hi "}]
LINE = "the model's chat template refuses the messages ("

RENDER = """
import json, sys
from autodeco.base import template_limits
from autodeco.base.chat_template import Renderer
from autodeco.errors import InputError
template_limits.MOST_SECONDS = 1.0
for name, source in json.load(sys.stdin).items():
    try:
        text = Renderer(source, "", "")([{"role": "user", "content": "hi"}], True, None)
        print(json.dumps([name, "text", len(text)]))
    except InputError as error:
        print(json.dumps([name, "refused", str(error)]))
"""


def test_templates_without_an_end_are_refused_soon_and_in_little_memory():
    """In a process that may have 3 GB of addresses and a minute, which each of them would fill."""
    every = ENDLESS | PYTHON | BROKEN
    result = subprocess.run(
        [sys.executable, "-c", RENDER],
        input=json.dumps(every),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [name for name, _, _ in found] == list(every)
    for name, verdict, told in found:
        assert verdict == "refused", name
        assert told.startswith(LINE), told
        assert told.isprintable(), told
        assert len(told) < 500


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('') }}", "it gives no reason"),
        ("{{ raise_exception('only\nusers \x1b[31m') }}", "only users ?[31m"),
        ("{{ raise_exception('long' * 1000) }}", "longlong"),
        ("a\n{% if %}", "line 2: Expected an expression, got 'end of statement block'"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it goes too deep"),
        (ENDLESS["loops"], "it does not come to an end"),
        (ENDLESS["text"], "it makes too much text"),
        (PYTHON["center"], "it pads a text too far"),
    ],
)
def test_the_reason_is_told_in_one_line(source, reason):
    with pytest.raises(InputError) as told:
        Renderer(source, "", "")(MESSAGES, True, None)
    assert str(told.value).startswith(f"{LINE}{reason}")
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("name", ["searched", "sorted"])
def test_few_steps_that_take_long_are_ended_too(name, monkeypatch):
    monkeypatch.setattr(template_limits, "MOST_SECONDS", 0.2)
    with pytest.raises(InputError, match=re.escape(f"{LINE}it does not come to an end)")):
        Renderer(PYTHON[name], "", "")(MESSAGES, True, None)


@pytest.mark.parametrize("name", DOUBLED)
def test_what_is_small_and_endless_to_print_is_refused_when_it_is_made(name):
    source, reason = DOUBLED[name]
    with pytest.raises(InputError) as told:
        Renderer(source, "", "")(MESSAGES, True, None)
    assert str(told.value).startswith(f"{LINE}{reason}")


def test_namespaces_that_hold_each_other_print_nothing_of_it():
    source = "{% set n = namespace(x=1) %}{% set m = namespace(x=n, y=n) %}{% set n.x = m %}{{ m }}"
    assert ChatTemplate(source).render(messages=MESSAGES) == "<Namespace>"


def test_lists_that_a_template_writes_are_lists():
    source = (
        "{% set a, b = (1, [2, {'x': (3, 4)}]) %}{% for c, d in b[1].items() %}{{ a }}{{ c }}{{ d[1] }}{% endfor %}"
    )
    assert ChatTemplate(source).render(messages=MESSAGES) == "1x4"


def test_a_long_chat_is_no_endless_one_and_what_traces_goes_on():
    source = "{% for m in messages %}{{ m.role ~ ': ' + m['content']|trim }}\n{% endfor %}"
    source += "{{ '%05d' % 7 }} {{ '{:>3}'.format(1) }}"
    seen, before = [], sys.gettrace()

    def trace(frame, event, argument):
        seen.append(event)

    sys.settrace(trace)
    try:
        text = ChatTemplate(source).render(messages=MESSAGES * 5000)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert text == "user: hi\n" * 5000 + "00007   1"


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_with_such_a_template_opens_and_only_its_chats_are_refused(name, smollm2, tmp_path):
    source, reason = REFUSED[name]
    model = with_template(tmp_path / "model.gguf", smollm2, source)
    llm = autodeco.Llama(str(model), n_ctx=64, verbose=False)
    assert llm("one", max_tokens=2)["usage"]["completion_tokens"] == 2
    for _ in range(2):
        with pytest.raises(InputError, match=re.escape(LINE + reason)):
            llm.create_chat_completion(MESSAGES, max_tokens=2)
    llm.close()
    program = compiled("autodeco-cli")
    plain = subprocess.run([program, "-m", model, "-p", "one", "-n", "2"], capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stderr) == (0, "")
    chat = [program, "-m", model, "--chat", "-p", "one", "-n", "2"]
    result = subprocess.run(chat, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"autodeco-cli: error: {LINE}{reason}")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 500
