"""Given answers read again by the model: what heads would have picked for their tokens."""

from pathlib import Path
from typing import Any

import numpy as np

from autodeco import native
from autodeco.base.states import StatefulModel, StateReader, open_stateful
from autodeco.base.tokenizer import Tokenizer
from autodeco.data.inverse_temperature import inverse_mean
from autodeco.evaluation.answer_logs import Pass
from autodeco.evaluation.diagnostics import GivenToken, figures, given_token
from autodeco.evaluation.methods import AUTODECO, DEFAULT
from autodeco.evaluation.running import TaskPasses
from autodeco.evaluation.settings import Settings
from autodeco.settings.limits import PROMPT_BATCH

MOST_TOKENS = 5000  # a task; each has its vocabulary sorted


class GivenAnswers:
    """Reads given answers with the model in ``model`` and the heads in ``heads``; a context, which frees the model."""

    def __init__(self, model: Path, heads: Path, settings: Settings, context: int, **opening: Any):
        self._heads = native.load_heads(heads)
        self._settings = settings
        self._opening = {"n_ctx": context, "n_batch": PROMPT_BATCH, **opening}
        self._model = model
        self._llm: StatefulModel | None = None

    def __enter__(self) -> "GivenAnswers":
        self._llm = open_stateful(self._model, **self._opening)
        return self

    def __exit__(self, *error) -> None:
        self._llm.close()

    def diagnostics(self, passes: TaskPasses, title: str = AUTODECO.name) -> dict[str, Any] | None:
        """The figures of ``diagnostics`` over right answers to the test problems, one a problem, chosen at random.

        They are the default setting's, which owe nothing to the heads; those of the heads, the method ``title``, where
        that has none. None if none is right.
        """
        sources = [passes.test[name] for name in (DEFAULT.title, title) if name in passes.test]
        right = [source for source in sources if any(row["right"] for row in source.rows)]
        if not right:
            return None
        source = right[0]
        read = self.read(source, passes.task.test)
        inverse = inverse_mean([t for *_, temperatures, _ in read for t in temperatures])
        top_p = float(np.mean([p for *_, top_ps in read for p in top_ps]))
        tokens: list[GivenToken] = []
        for number, (prompt, ids, temperatures, top_ps) in enumerate(read):
            for start, _, logits in StateReader(self._llm).read(prompt, ids):
                tokens += [
                    given_token(number, row, ids[i], (temperatures[i], top_ps[i]), (inverse, top_p))
                    for i, row in enumerate(logits, start)
                ]
        return {"of": source.method.title, **figures(tokens, self._settings.seed)}

    def read(self, source: Pass, problems: list[dict]) -> list[tuple[list[int], list[int], list[float], list[float]]]:
        """Prompt, answer and the heads' temperatures and top-ps of the chosen answers."""
        random = np.random.default_rng(self._settings.seed)
        right: dict[int, list[dict]] = {}
        for row in source.rows:
            if row["right"]:
                right.setdefault(row["problem"], []).append(row)
        tokenizer, states, read, count = Tokenizer(self._llm), StateReader(self._llm), [], 0
        for index in random.permutation(sorted(right)).tolist():
            if count >= MOST_TOKENS:
                break
            row = right[index][random.integers(len(right[index]))]
            prompt = tokenizer.prompt_ids(problems[index]["prompt"], problems[index].get("tools"))
            level, predicted = None, []
            for _, hidden, logits in states.read(prompt, row["ids"]):
                if level is None:  # of the whole answer
                    level = float(self._heads.levels(hidden[:1])[0])
                predicted.append(self._heads.predict(hidden, logits))
            temperatures, top_ps = self._heads.steered(*map(np.concatenate, zip(*predicted, strict=True)), level or 0.0)
            read.append((prompt, row["ids"], temperatures.tolist(), top_ps.tolist()))
            count += len(row["ids"])
        return read
