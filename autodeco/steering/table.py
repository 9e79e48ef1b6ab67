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
    head = "prompts", "mean level", "below 0", "0", "above 0"
    lines += _table(head, level_cells(measured["followed"]["levels"]))
    head = "prompts that were left out at first", "read as certain", "read as diverse"
    lines += _table(head, learned_cells(figures["learned"]))
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


def level_cells(levels: dict) -> list[tuple[str, ...]]:
    """Return (what is asked, the mean level that is read, the shares of prompts in which it is below, at and above 0),
    as text."""
    said = {"low": "asked to be certain", "plain": "no command", "high": "asked to be diverse"}
    rows = []
    for name in COMMANDS:
        of = levels[name]
        none = 1 - of["below"] - of["above"]
        rows.append((said[name], f"{of['mean']:+.2f}", *(f"{share:.1%}" for share in (of["below"], none, of["above"]))))
    return rows


def learned_cells(learned: dict) -> list[tuple[str, ...]]:
    """Return (what is asked of the fifth that was left out, the share whose level is beyond the dead zone on its side),
    as text."""
    read = learned["read"]
    return [("asked to be certain", f"{read['low']:.1%}", ""), ("asked to be diverse", "", f"{read['high']:.1%}")]


def _named(value: str) -> str:
    return value.replace("_", "-")


def _difference(of: dict, form: str) -> str:
    return f"{of['difference']:{form}}, {of['low_end']:{form}} to {of['high_end']:{form}}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a Markdown table, with an empty one after it."""
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)] + [""]
