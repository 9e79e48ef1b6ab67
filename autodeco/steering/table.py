"""The figures of commands that are followed, as rows of a table."""


def share_lines(figures: dict) -> list[str]:
    """Return the shares of one result as the lines of a Markdown table, with 95% Wilson intervals."""
    followed = figures["measured"]["followed"]
    lines = [
        f"| {followed['prompts']} prompts, {figures['model']} | share | 95% interval | paper |",
        "|---|---|---|---|",
    ]
    return lines + [f"| {' | '.join(row)} |" for row in share_cells(figures)]


def share_cells(figures: dict) -> list[tuple[str, str, str, str]]:
    """Return (what moves, share, interval, in the paper) of each direction and value, as text."""
    return [
        (
            f"{row['direction']}: {row['value'].replace('_', '-')} {'falls' if row['direction'] == 'low' else 'rises'}",
            f"{row['share']:.1%}",
            f"{row['low_end']:.1%} to {row['high_end']:.1%}",
            f"{row['paper']:.0%}",
        )
        for row in figures["measured"]["followed"]["shares"]
    ]
