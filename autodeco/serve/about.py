"""What a server says of the heads that it serves."""

from pathlib import Path
from typing import Any

from autodeco.export.evaluation import evaluation_of
from autodeco.export.fit import check_fit
from autodeco.export.layout import open_layout
from autodeco.export.weights_digest import weights_digest
from autodeco.llama import Llama


def about_heads(llm: Llama) -> dict[str, Any] | None:
    """Return the file with the heads of ``llm`` and what they are, whether they were made for the model, a warning if
    not, and the verdict of their evaluation, if the file has one; None without heads."""
    if llm.heads is None:
        return None
    layout = open_layout(llm.heads)
    warning = check_fit(layout, open_layout(llm.model_path))
    evaluation = evaluation_of(layout.heads)
    return {
        "file": Path(llm.heads).name,
        "kind": layout.kind,
        "temperature": layout.has_temperature,
        "top_p": layout.has_top_p,
        "control": layout.control is not None,
        "prob_stats": layout.prob_stats,
        "weights": weights_digest(layout),
        "base_model": layout.base_name,
        "base_fingerprint": layout.base_fingerprint,
        "fits": warning is None,
        "warning": warning,
        "verdict": None if evaluation is None else evaluation.verdict,
    }
