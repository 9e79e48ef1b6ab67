"""Generate text; with heads, temperature and top-p are picked for every token."""

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from autodeco.data.prompt_text import prompt_text
from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.limits import DEFAULT_CONTEXT
from autodeco.settings.machine import Machine
from autodeco.settings.opened import Opened, model_option
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class Prompt(Opened):
    """What is answered, and by what."""

    prompt: str | None = option(
        None,
        "the prompt; - or nothing reads it from standard input, without the line break at its end",
        positional=True,
    )
    model: Path | None = model_option(short="-m")
    chat: bool = option(False, "put the prompt into the model's chat template")
    system: str | None = option(None, "system message, with --chat", metavar="TEXT")
    show: str | None = option(None, "colour each token by what was picked for it", choices=("temperature", "top-p"))


@dataclass(frozen=True)
class Sampler(Options):
    """How the tokens are sampled."""

    max_tokens: int = option(256, "of the answer", least=1, short="-n")
    seed: int | None = option(None, "(default: a random one)", least=-1, most=2**32 - 1, hint="-1 is a random one")
    temperature: float = option(
        1.0,
        "multiplies the predicted temperature, 0 is greedy; the temperature itself without heads",
        least=0.0,
        most=1e6,
    )
    top_p: float = option(1.0, "likewise for top-p", least=0.0, most=1e6)
    top_k: int = option(0, "keep only so many tokens, 0: all", least=0)
    min_p: float = option(0.0, "keep tokens of at least this share of the likeliest", least=0.0, most=1.0)
    repeat_penalty: float = option(1.0, "1.0: none", least=0.01, most=100.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco generate``."""
    add_settings(parser, Prompt, Sampler, Machine)


def run(args: argparse.Namespace) -> None:
    """Stream the answer to standard output, and a summary of the temperatures and top-ps to standard error."""
    asked, sampler, machine = given_settings(args, Prompt, Sampler, Machine)
    piped = asked.prompt in (None, "-")
    text = prompt_text(sys.stdin.buffer.read(), "standard input") if piped else _argument("the prompt", asked.prompt)
    if asked.system:
        asked = replace(asked, system=_argument("--system", asked.system))
    if not text:
        raise InputError("the prompt is empty; give it as an argument or on standard input")
    if asked.system and not asked.chat:
        raise InputError("--system needs --chat; a plain prompt has no system message")
    llm = open_model(asked, machine)
    prompt = _prompt_ids(llm, asked, text)
    try:
        _stream(llm, prompt, sampler, asked.show)
    except InputError:
        raise
    except ValueError as error:  # logits that are no numbers
        raise InputError(f"{llm.model_path}: {error}; the model may be damaged") from None
    print()
    if llm.heads is not None and len(llm.decoding):
        _sum_up(llm.decoding, asked.show)


def _argument(what: str, text: str) -> str:
    """Return ``text``, an argument, as the UTF-8 that its bytes are, in a locale without letters too; raises InputError
    where they are none."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:  # bytes that the locale has no letters for
        pass
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise InputError(f"{what}: holds bytes that are no UTF-8; give it as UTF-8") from None


def open_model(asked: Prompt, machine: Machine):
    from autodeco.base.opening import default_model
    from autodeco.llama.opening import open_llama

    model = asked.model or default_model()
    llm = open_llama(model, asked.heads, n_ctx=_context(model, asked), **machine.opening)
    if asked.show and llm.heads is None:
        raise InputError(f"{llm.model_path}: has no heads, so there is nothing to --show; give --heads")
    return llm


def _context(model: Path, asked: Prompt) -> int:
    """Return the tokens that there is to be room for; raise InputError for more than the model was trained on, and for
    a chat with a model that has no template for one."""
    from autodeco.base.opening import check_gguf
    from autodeco.base.trained_context import trained_context
    from autodeco.export.layout import open_layout

    layout = open_layout(check_gguf(model))
    if asked.chat and not layout.gguf.get("tokenizer.chat_template"):
        raise InputError(f"{model}: has no chat template; leave out --chat, and give the prompt as plain text")
    trained = trained_context(layout)
    if trained is None:
        return asked.context
    if asked.context > max(trained, DEFAULT_CONTEXT):
        raise InputError(f"context {asked.context}: the model was trained on {trained} tokens; give at most that, or 0")
    return min(asked.context, trained)


def _prompt_ids(llm, asked: Prompt, text: str) -> list[int]:
    from autodeco.base.tokenizer import Tokenizer

    system = [{"role": "system", "content": asked.system}] if asked.system else []
    prompt = Tokenizer(llm).prompt_ids([*system, {"role": "user", "content": text}] if asked.chat else text)
    if len(prompt) >= llm.n_ctx():
        raise InputError(f"the prompt has {len(prompt)} tokens and fills the context of {llm.n_ctx()}; raise --context")
    return prompt


def _stream(llm, prompt: list[int], sampler: Sampler, show: str | None) -> None:
    """Print the answer as it comes, its tokens coloured by what ``show`` names."""
    import llama_cpp

    from autodeco.llama.streaming import stream
    from autodeco.reports.colors import SCALES, in_color

    seed = llama_cpp.LLAMA_DEFAULT_SEED if sampler.seed is None else sampler.seed
    settings = {name: getattr(sampler, name) for name in ("top_p", "top_k", "min_p", "repeat_penalty")}
    for _, text in stream(llm, prompt, sampler.max_tokens, seed, temp=sampler.temperature, **settings):
        if show:
            row = llm.last_decoding
            value = row.temperature if show == "temperature" else row.top_p
            text = in_color(text, value, SCALES[show])
        print(text, end="", flush=True)


def _sum_up(decoding, show: str | None) -> None:
    from rich.console import Console

    from autodeco.reports.colors import legend

    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if show:
        errors.print(legend(show))
    errors.print(
        f"{len(decoding)} tokens; temperature {decoding.temperature.mean():.2f} "
        f"(+-{decoding.temperature.std():.2f}), top-p {decoding.top_p.mean():.2f} (+-{decoding.top_p.std():.2f})"
    )
