"""How many tokens a model was trained to read, and prompts that are longer."""

from collections.abc import Sequence

from autodeco.data.json_lines import place_of
from autodeco.errors import InputError
from autodeco.export.layout import Layout


def trained_context(layout: Layout) -> int | None:
    """Return the tokens of the longest text that the model was trained on, None where its file does not say."""
    found = layout.gguf.get(f"{layout.architecture}.context_length")
    return found if isinstance(found, int) and found > 0 else None


def check_prompts(
    problems: Sequence[dict], prompts: Sequence[Sequence[int]], max_tokens: int, context: int | None
) -> None:
    """Raise InputError if any of ``prompts`` (token ids), those of ``problems``, and an answer of ``max_tokens`` exceed
    the ``context`` that the model was trained with; None: no limit is known."""
    long = [i for i, prompt in enumerate(prompts) if context is not None and len(prompt) + max_tokens > context]
    if not long:
        return
    longest = max(long, key=lambda i: len(prompts[i]))
    number = "this prompt exceeds" if len(long) == 1 else f"{len(long)} prompts, this the longest, exceed"
    raise InputError(
        f"{place_of(problems[longest])}the prompt has {len(prompts[longest])} tokens; with answers of up to "
        f"{max_tokens}, {number} the {context} tokens that the model was trained with; leave such prompts out, or "
        "lower --max-tokens"
    )
