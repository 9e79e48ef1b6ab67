"""The page at /autodeco, in a browser: what it shows of an answer, and what it lets nobody put into it."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autodeco.serve.page import headers, page
from autodeco.serve.served_llama import ServedLlama
from builders.browser import browser_or_skip
from builders.serving import CHAT, serving

MOST_BYTES = 64_000


def test_the_page_is_one_small_file_that_fetches_nothing():
    html = page()
    assert len(html.encode()) < MOST_BYTES
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", re.sub(r"^\s*//.*$", "", html, flags=re.MULTILINE)))
    assert addresses == {"http://www.w3.org"}, "the name of SVG, which nobody fetches"
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=|<link[^>]*href=(?![\"']data:)|@import|url\(", html)


def test_the_page_s_policy_lets_nothing_else_run():
    html, policy = page(), headers()["Content-Security-Policy"]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        made = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert parts[f"{tag}-src"] == f"'sha256-{made}'", (
            f"the page changed: write this hash of its {tag} into its policy"
        )
    assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == parts["frame-ancestors"] == "'none'"
    assert parts["connect-src"] == "'self'"
    assert "unsafe" not in policy


def test_the_page_writes_text_alone():
    """No way from a string to markup, or to code, is in it."""
    (script,) = re.findall(r"<script>(.*?)</script>", page(), re.DOTALL)
    for way in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "parseFromString", "srcdoc"):
        assert way not in script
    # the one use of outerHTML writes a file of nodes
    assert script.count("outerHTML") == 1
    assert not re.search(r"outerHTML\s*=", script)


EVIL = [
    "Hi <img src=x onerror=\"document.title='got in'\">",
    "</script><script>document.title='got in'</script>",
    "&lt;b&gt;",
]
PROPS = {
    "model_alias": "/models/<b>small<b>.gguf",
    "autodeco": {"file": "heads.gguf", "fits": True, "warning": None, "verdict": "The heads win."},
}


class Scripted(BaseHTTPRequestHandler):
    """Answers with pieces that a test chose; keeps what was asked."""

    def log_message(self, *args) -> None:
        pass

    def _send(self, status: int, kind: str, body: bytes, **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.script.got.append(self.path)
        if self.path.partition("?")[0] == "/autodeco":
            self._send(200, "text/html; charset=utf-8", page().encode(), **headers())
        elif self.path == "/props" and self.server.script.is_router:
            self._send(200, "application/json", b'{"role": "router"}')
        elif self.path.partition("?")[0] == "/props":
            self._send(200, "application/json", json.dumps(PROPS).encode())
        else:
            self._send(404, "text/plain", b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.server.script
        script.asked.append(body)
        if script.error:
            self._send(*script.error)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        pieces = script.pieces
        for i, text in enumerate(pieces):
            row = {
                "token": [i],
                "temperature": [0.2 * (i + 1)],
                "top_p": [0.9 - 0.2 * i],
                "nucleus": [i + 1],
                "prob": [0.5],
            }
            self._event({"choices": [{"index": 0, "delta": {"content": text}, "autodeco": row, "finish_reason": None}]})
            if i == 0 and not script.go_on.wait(30):
                return
        if not script.breaks_off:
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, chunk: dict) -> None:
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()


class Script:
    """What the server does: pieces or an error."""

    def __init__(self, pieces: list[str]):
        self.pieces = pieces
        self.error: tuple | None = None
        self.breaks_off = False
        self.is_router = False
        self.got: list[str] = []
        self.asked: list[dict] = []
        self.go_on = threading.Event()
        self.go_on.set()


@contextlib.contextmanager
def scripted(pieces: list[str]) -> Iterator[tuple[str, Script, ThreadingHTTPServer]]:
    """The address of a server that answers with ``pieces``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.daemon_threads = True
    server.script = Script(pieces)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.script, server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser():
    with browser_or_skip() as browser:
        yield browser


@pytest.fixture
def opened(browser):
    """opened(pieces) -> the page at a server that answers with them, and the server's script."""
    with contextlib.ExitStack() as stack:

        def open_page(pieces: list[str], **settings):
            url, script, server = stack.enter_context(scripted(pieces))
            tab = browser.new_page(accept_downloads=True, **settings)
            stack.callback(tab.close)
            tab.raised = []
            tab.on("pageerror", lambda error: tab.raised.append(str(error)))
            tab.on("console", lambda said: tab.raised.append(said.text) if "Content Security" in said.text else None)
            tab.goto(url + "/autodeco")
            return tab, script, server

        yield open_page


def send(tab, text: str = "Hello", answers: int = 1) -> None:
    """Send ``text`` and wait for its answers."""
    before = tab.locator(".answer").count()
    tab.fill("#ask", text)
    tab.press("#ask", "Enter")
    tab.locator(".answer").nth(before + answers - 1).wait_for()
    tab.locator("#send").wait_for()  # comes back when all is done
    assert tab.locator(".answer.busy").count() == 0


WORDS = ["One", " two", " three", "\nfour"]


@pytest.mark.slow
def test_an_answer_comes_piece_by_piece_in_colours(opened):
    tab, script, _ = opened(WORDS)
    script.go_on.clear()
    tab.fill("#ask", "Hello")
    tab.press("#ask", "Enter")
    tab.locator(".t").first.wait_for()
    assert tab.locator(".answer .text").inner_text() == "One", "while the rest is not there"
    assert tab.locator(".answer").get_attribute("aria-busy") == "true"
    script.go_on.set()
    tab.locator("#send").wait_for()
    assert tab.locator(".answer .text").text_content() == "".join(WORDS)
    assert tab.locator(".answer").get_attribute("aria-busy") == "false"

    def colors() -> list[str]:
        return [tab.locator(".t").nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(4)]

    by_temperature = colors()
    assert len(set(by_temperature)) == 4
    assert by_temperature[0].startswith("rgba(59, 107, 214, 0.36"), "the coldest"
    assert by_temperature[3].startswith("rgba(226, 58, 58, 0.36"), "the hottest"
    tab.check("input[value=top_p]")
    assert colors()[0] == by_temperature[3], "the largest top-p"
    tab.uncheck("#spread")
    assert colors()[0] != by_temperature[3], "on the whole scale"
    assert tab.locator(".sum").inner_text() == "4 tokens · temperature 0.50 · top-p 0.60 · 25.0% certain"
    assert tab.locator("#told").text_content().startswith("With heads: answer complete, 4 tokens")
    assert tab.raised == []


@pytest.mark.slow
def test_the_values_of_a_token_are_shown_to_the_pointer_and_to_keys(opened):
    tab, _, _ = opened(WORDS)
    send(tab)
    tip = tab.locator("#tip")
    assert tip.is_hidden()
    tab.hover(".t >> nth=1")
    shown = " ".join(tip.inner_text().split())
    assert shown == "“ two” Temperature 0.400 Top-p 0.700 Nucleus 2 tokens Probability 50.0%"
    tab.hover("h1")
    assert tip.is_hidden()
    tab.locator(".text").focus()
    for key, word in (("End", "“⏎four”"), ("ArrowLeft", "“ three”"), ("Home", "“One”"), ("ArrowRight", "“ two”")):
        tab.keyboard.press(key)
        assert tab.locator(".t.now").count() == 1
        assert tip.locator("b").inner_text() == word
        assert tab.locator("#told").text_content().startswith(f"{word}: Temperature")
    tab.keyboard.press("Escape")
    assert tip.is_hidden()
    chart = tab.locator(".chart")
    assert chart.get_attribute("aria-label") == "Temperature over the answer: mean 0.50, from 0.20 to 0.80"
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 20)
    assert tip.locator("b").inner_text() == "“⏎four”"


@pytest.mark.slow
def test_what_is_chosen_reaches_the_request(opened):
    tab, script, _ = opened(WORDS)
    send(tab)
    assert script.asked.pop() == {
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 256,
        "autodeco": {"heads": "both", "values": True, "temperature_scale": 1, "top_p_scale": 1},
    }
    tab.fill("#temperature_scale", "1.5")
    tab.locator("#top_p_scale").focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#temperature_scale_said").inner_text() == "1.50"
    tab.select_option("#heads", "temperature")
    tab.fill("#seed", "7")
    tab.fill("#max_tokens", "33")
    tab.fill("#system", "Be short.")
    send(tab, "And then?")
    asked = script.asked.pop()
    assert asked["autodeco"] == {"heads": "temperature", "values": True, "temperature_scale": 1.5, "top_p_scale": 0.95}
    assert (asked["top_p"], asked["seed"], asked["max_tokens"]) == (0.95, 7, 33)
    assert "temperature" not in asked
    assert [(message["role"], message["content"]) for message in asked["messages"]] == [
        ("system", "Be short."),
        ("user", "Hello"),
        ("assistant", "".join(WORDS)),
        ("user", "And then?"),
    ]


@pytest.mark.slow
def test_a_router_is_asked_for_the_model_in_the_address(opened):
    tab, script, _ = opened(WORDS)
    script.is_router = True
    tab.reload()
    tab.get_by_text("several models: add ?model=NAME to the address").wait_for()
    tab.goto(tab.url + "?model=a%26b%2Fc")
    tab.get_by_text("heads on").wait_for()
    assert script.got[-1] == "/props?model=a%26b%2Fc"
    send(tab)
    assert script.asked[-1]["model"] == "a&b/c"


@pytest.mark.slow
def test_two_answers_stand_side_by_side(opened):
    tab, script, _ = opened(WORDS)
    tab.check("#beside")
    send(tab, answers=2)
    assert sorted(asked["autodeco"]["heads"] for asked in script.asked) == ["both", "none"]
    (without,) = (asked for asked in script.asked if asked["autodeco"]["heads"] == "none")
    assert (without["temperature"], without["top_p"]) == (0.8, 0.95)
    assert tab.locator(".answer h3 span:first-child").all_inner_texts() == ["With heads", "Without heads"]
    left, right = (tab.locator(".answer").nth(i).bounding_box() for i in range(2))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]


@pytest.mark.slow
def test_the_same_under_three_commands_is_three_answers_in_three_colours(opened):
    tab, script, _ = opened(WORDS)
    tab.check("#commands")
    send(tab, "Tell me a tale.", answers=3)
    asked = sorted(body["messages"][-1]["content"] for body in script.asked)
    assert asked[0] == "Tell me a tale."
    assert [text.startswith("Tell me a tale. Please be as") for text in asked[1:]] == [True, True]
    titles = tab.locator(".answer h3 span:first-child")
    assert titles.all_inner_texts() == ["Asked to be certain", "No command", "Asked to be diverse"]
    boxes = [tab.locator(".answer").nth(i).bounding_box() for i in range(3)]
    assert boxes[0]["y"] == boxes[1]["y"] == boxes[2]["y"]
    curves = tab.locator(".together .curve")
    colors = [curves.nth(i).evaluate("e => getComputedStyle(e).stroke") for i in range(3)]
    assert curves.count() == 3
    assert len(set(colors)) == 3
    assert [titles.nth(i).evaluate("e => getComputedStyle(e).color") for i in range(3)] == colors
    label = tab.locator(".together").get_attribute("aria-label")
    assert label == "Temperature: asked to be certain 0.50, no command 0.50, asked to be diverse 0.50"
    # the conversation goes on with the answer to no command
    tab.uncheck("#commands")
    script.asked.clear()
    send(tab, "And then?")
    assert [message["content"] for message in script.asked[0]["messages"]] == [
        "Tell me a tale.",
        "".join(WORDS),
        "And then?",
    ]
    assert tab.raised == []


@pytest.mark.slow
def test_errors_are_shown_in_words(opened):
    tab, script, server = opened(WORDS)
    problem = tab.locator(".problem").last
    script.error = (400, "application/json", b'{"error": {"message": "messages: too long <b>"}}')
    send(tab)
    assert problem.inner_text() == "messages: too long <b>"
    assert problem.get_attribute("role") == "alert"
    script.error = (502, "text/plain", b"")
    send(tab)
    assert problem.inner_text() == "HTTP 502"
    script.error, script.breaks_off = None, True
    send(tab)
    assert problem.inner_text() == "The connection broke off before the answer was complete."
    server.shutdown()
    server.server_close()
    send(tab)
    assert problem.inner_text() == "The server cannot be reached. Is it still running?"


@pytest.mark.slow
def test_what_a_model_says_is_text(opened, browser, tmp_path):
    tab, _, _ = opened(EVIL)
    send(tab, "<img src=x onerror=alert(1)>")
    said = "".join(EVIL)
    assert tab.locator(".answer .text").text_content() == said
    assert tab.locator("#model").inner_text() == "<b>small<b>.gguf"
    assert tab.locator("#talk img, #talk b, #talk script, header b").count() == 0
    assert tab.title() == "AutoDeco: what was picked"
    with tab.expect_download() as download:
        tab.click("#export")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == "conversation.html"
    assert "<script" not in saved.read_text().lower()
    tab.goto(saved.as_uri())
    assert tab.locator("p.text").text_content() == said
    assert tab.locator("p.said").text_content() == "<img src=x onerror=alert(1)>"
    assert tab.locator("img, script, p b").count() == 0
    assert tab.locator("svg .curve").count() == 1
    assert (
        tab.locator(".t").nth(2).get_attribute("title")
        == "Temperature 0.600\nTop-p 0.500\nNucleus 3 tokens\nProbability 50.0%"
    )
    assert tab.locator(".t").nth(2).evaluate("e => getComputedStyle(e).backgroundColor").startswith("rgba(226, 58, 58")
    assert "got in" not in tab.title()
    assert tab.raised == []


@pytest.mark.slow
def test_it_fits_a_phone_and_a_dark_room(opened):
    tab, _, _ = opened(WORDS, viewport={"width": 390, "height": 780}, color_scheme="dark")
    assert tab.locator("aside").is_hidden()
    send(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.click("#toggle")
    assert tab.locator("#temperature_scale").is_visible()
    assert tab.locator("#toggle").get_attribute("aria-expanded") == "true"
    tab.keyboard.press("Escape")
    assert tab.locator("aside").is_hidden()

    def light(color: str) -> float:
        red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
        return sum(
            share * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
            for share, part in ((0.2126, red), (0.7152, green), (0.0722, blue))
        )

    for name in ("body", ".answer h3", ".sum", "#send", ".said p"):
        ink, ground = tab.locator(name).first.evaluate(
            """e => { const ink = getComputedStyle(e).color; let b = e;
            while (/, 0\\)$/.test(getComputedStyle(b).backgroundColor)) b = b.parentElement;
            return [ink, getComputedStyle(b).backgroundColor]; }"""
        )
        low, high = sorted((light(ink), light(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


@pytest.mark.slow
def test_every_control_has_a_name(opened):
    tab, _, _ = opened(WORDS)
    send(tab)
    for role, least in (("button", 3), ("textbox", 2), ("slider", 2), ("radio", 2), ("checkbox", 2), ("combobox", 1)):
        found = tab.get_by_role(role)
        assert found.count() >= least, role
        assert found.count() == tab.get_by_role(role, name=re.compile(r"\S")).count(), role
    assert tab.get_by_role("region", name="Conversation").count() == 1
    assert tab.get_by_role("article", name="With heads").count() == 1


@pytest.mark.slow
def test_it_shows_what_a_model_picked(browser, smollm2, exported):
    """At the server itself, whose seed gives the same answer again."""
    llm = ServedLlama(str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    with serving(llm) as client, contextlib.closing(browser.new_page()) as tab:
        raised: list[str] = []
        tab.on("pageerror", lambda error: raised.append(str(error)))
        tab.goto(client.url)
        assert tab.locator("#state.on").inner_text() == "heads on"
        for name, value in (
            ("#seed", "5"),
            ("#max_tokens", "12"),
            ("#temperature_scale", "1.5"),
            ("#top_p_scale", "2"),
        ):
            tab.fill(name, value)
        asked = {"messages": [{"role": "user", "content": "Hello"}], "seed": 5, "max_tokens": 12}
        asked["autodeco"] = {"temperature_scale": 1.5, "top_p_scale": 2}
        client.json(CHAT, asked)  # so that what follows has read the prompt, in the same batches
        send(tab)
        (choice,) = client.json(CHAT, asked)["choices"]
        values = choice["autodeco"]
        assert raised == []
        mean = sum(values["temperature"]) / len(values["temperature"])
        assert (
            tab.locator(".sum").first.inner_text().startswith(f"{len(values['token'])} tokens · temperature {mean:.2f}")
        )
        tab.hover(".t >> nth=0")
        assert f"Temperature {values['temperature'][0]:.3f}" in " ".join(tab.locator("#tip").inner_text().split())
    llm.close()


def test_the_screenshots_of_the_documentation_are_small():
    folder = Path(__file__).parents[2] / "docs"
    for name in ("page-light.png", "page-dark.png", "page-phone.png"):
        assert 5_000 < (folder / name).stat().st_size < 200_000
