"""The figures of commands that are followed, as rows of tables."""

from autodeco.data.control import DEGREES

COMMANDS = ("low", "plain", "high")


def tables(figures: dict) -> list[str]:
    """Return all figures of one result as the lines of Markdown tables."""
    measured = figures["measured"]
    prompts = measured["followed"]["prompts"]
    lines = _table((f"{figures['model']}, {prompts} prompts", "share", "95% interval", "paper"), share_cells(figures))
    lines += _table(("answers", "asked to be certain", "no command", "asked to be diverse"), measure_cells(measured))
    if "scale" in measured:
        lines += _table(
            ("degree", *map(str, range(DEGREES + 1)), "Spearman", "by prompt"), scale_cells(measured["scale"])
        )
    lines += _table(("what moves", "a quoted command", "a real one", "ratio"), quoted_cells(measured["quoted"]))
    lines += _table(
        ("texts without a command", "heads before", "shift", "of a text", "of a token"), held_cells(measured)
    )
    if "first_tokens" in measured["followed"]:
        head = "means over", "low: temperature", "low: top-p", "high: temperature", "high: top-p"
        lines += _table(head, first_cells(measured["followed"]))
    if "noise" in measured["followed"]:
        head = "mean over an answer", "moved by low", "by high", "deviation", "followed by averages: low", "high"
        lines += _table(head, noise_cells(measured["followed"]["noise"]))
    if "probe" in measured:
        head = "guess from states", "low, a token", "high, a token", "low, an answer", "high, an answer"
        lines += _table(head, probe_cells(measured["probe"]))
        places = list(next(iter(measured["probe"].values()))["by place"])
        lines += _table(("a token's place in the answer", *places), place_cells(measured["probe"]))
    return lines[:-1]


def share_cells(figures: dict) -> list[tuple[str, str, str, str]]:
    """Return (what moves, share, interval, in the paper) of each direction and value, as text."""
    return [
        (
            f"{row['direction']}: {_named(row['value'])} {'falls' if row['direction'] == 'low' else 'rises'}",
            f"{row['share']:.1%}",
            f"{row['low_end']:.1%} to {row['high_end']:.1%}",
            f"{row['paper']:.0%}",
        )
        for row in figures["measured"]["followed"]["shares"]
    ]


def measure_cells(measured: dict) -> list[tuple[str, str, str, str]]:
    """Return (what, low, no command, high) of what becomes of answers, as text; differences from no command with
    their 95% intervals."""
    followed = measured["followed"]
    rows = [(f"mean {_named(value)}", *(f"{of[c]:.3f}" for c in COMMANDS)) for value, of in followed["means"].items()]
    for name, key in (("entropy of a token, nats", "entropy"), ("distinct-2 of a prompt's answers", "distinct_2")):
        if of := followed[key]:
            low, high = (f"{of[c]:.3f} ({_difference(of[f'{c} over plain'], '+.3f')})" for c in ("low", "high"))
            rows.append((name, low, f"{of['plain']:.3f}", high))
    if "sums" in measured:
        of = measured["sums"]
        low = f"{of['low']:.1%} ({_difference(of, '+.1%')})"
        rows.append((f"{of['sums']} sums that are right", low, f"{of['plain']:.1%}", ""))
        if "over first heads" in of:
            before = f"{of['first heads, low']:.1%} (now {_difference(of['over first heads'], '+.1%')})"
            rows.append(("the same with the first heads", before, "", ""))
    return rows


def scale_cells(scale: dict) -> list[tuple[str, ...]]:
    """Return mean values by degree, Spearman's correlation of these, and its mean prompt by prompt, as text."""
    return [
        (
            f"mean {_named(value)}",
            *(f"{mean:.2f}" for mean in scale[value]["means"]),
            f"{scale[value]['spearman_of_means']:.2f}",
            f"{scale[value]['spearman_by_prompt']['mean']:.2f}",
        )
        for value in ("temperature", "top_p")
    ]


def quoted_cells(quoted: dict) -> list[tuple[str, str, str, str]]:
    """Return (what moves, by a quoted command with its 95% interval, by a real one, their ratio), as text."""
    rows = []
    for name, of in quoted.items():
        direction, value = name.split(" ")
        low, high = of["quoted_interval"]
        by_quote = f"{of['quoted']:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append((f"{direction}: {_named(value)}", by_quote, f"{of['real']:+.3f}", f"{of['ratio']:.2f}"))
    return rows


def held_cells(measured: dict) -> list[tuple[str, str, str, str, str]]:
    """Return (which texts, mean value before, shift of the mean, mean distance of a text's mean, of a token), as
    text."""
    rows = []
    for name, of in measured["held"].items():
        variant, value = name.split(" ")
        shown = f"{_named(value)}, {'no command' if variant == 'plain' else 'a neutral sentence'}"
        rows.append(
            (shown, f"{of['before']:.3f}", f"{of['shift']:+.4f}", f"{of['by_text']:.4f}", f"{of['by_token']:.4f}")
        )
    return rows


def first_cells(followed: dict) -> list[tuple[str, ...]]:
    """Return (how many first tokens, the share of prompts whose means over these move as the command says), as text."""
    shares = {f"{row['direction']} {row['value']}": row["share"] for row in followed["shares"]}
    names = {"1": "the first token"}
    rows = [(names.get(count, f"the first {count} tokens"), of) for count, of in followed["first_tokens"].items()]
    return [(name, *(f"{of[key]:.1%}" for key in shares)) for name, of in [*rows, ("all tokens", shares)]]


def noise_cells(noise: dict) -> list[tuple[str, ...]]:
    """Return (which mean, its steps behind commands, the deviation of it from answer to answer, shares of prompts
    that follow when all answers are averaged), as text."""
    rows = []
    for value, of in noise.items():
        between = "" if of["between_answers"] is None else f"{of['between_answers']:.3f}"
        steps = (f"{of['step'][direction]:+.3f}" for direction in ("low", "high"))
        rows.append((_named(value), *steps, between, *(f"{of['share_of_averages'][d]:.1%}" for d in ("low", "high"))))
    return rows


def probe_cells(probe: dict) -> list[tuple[str, ...]]:
    """Return (kind of guess, how often it orders two tokens right, two answers to one prompt), as text."""
    return [
        (name, *(f"{of[what][direction]:.1%}" for what in ("token", "answer") for direction in ("low", "high")))
        for name, of in probe.items()
    ]


def place_cells(probe: dict) -> list[tuple[str, ...]]:
    """Return (kind of guess and direction, how often it orders two tokens right at each place in an answer), as
    text."""
    return [
        (f"{name}: {direction}", *(f"{at[direction]:.1%}" for at in of["by place"].values()))
        for name, of in probe.items()
        for direction in ("low", "high")
    ]


def _named(value: str) -> str:
    return value.replace("_", "-")


def _difference(of: dict, form: str) -> str:
    return f"{of['difference']:{form}}, {of['low_end']:{form}} to {of['high_end']:{form}}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a Markdown table, with an empty one after it."""
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)] + [""]
