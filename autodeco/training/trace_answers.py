"""The answers in traces that were collected after commands: the tokens of each, and those that an update ranks."""

import itertools

import numpy as np

from autodeco.data.control import DIRECTIONS, NO_COMMAND
from autodeco.errors import InputError
from autodeco.training.arguments import TrainingArguments
from autodeco.training.batches import ShuffledBatches, ranked_indices
from autodeco.training.trace_tokens import TraceTokens


class TraceAnswers:
    """The answers of the training records, and of those that the tokens at ``validation`` are of.

    Raises InputError for traces without commands, and for an answer that is not there after every command it needs.
    """

    def __init__(self, traces: TraceTokens, validation: np.ndarray, arguments: TrainingArguments):
        if traces.control is None:
            raise InputError(f"{traces.directory}: was collected without commands; collect with --control for these")
        self._arguments, self._commands = arguments, traces.control.commands
        everything = np.arange(len(traces))
        records, commands = traces.records(everything), traces.given(everything)
        edges = np.flatnonzero(np.diff(records) | np.diff(commands)) + 1
        self._tokens: dict[int, dict[int, range]] = {}  # of each record by command
        for start, stop in itertools.pairwise([0, *edges.tolist(), len(traces)]):
            self._tokens.setdefault(int(records[start]), {})[int(commands[start])] = range(start, stop)
        held_out = set(traces.control.held_out)
        for record in self._tokens:
            self._check(traces, record, (False, True) if record in held_out else (False,))
        training = np.array([record for record in self._tokens if record not in held_out])
        self._batches = ShuffledBatches(training, arguments.control_prompts, arguments.seed)
        self.validation = everything[np.isin(records, traces.records(validation))]

    def training(self, step: int) -> np.ndarray:
        """Return the token indices of update ``step``: the same tokens of an answer after each of its commands."""
        records = self._batches.batch(step)
        return np.concatenate([self._token_indices(record, step) for record in dict.fromkeys(records.tolist())])

    def _token_indices(self, record: int, step: int) -> np.ndarray:
        answers = [np.array(tokens) for tokens in self._tokens[record].values()]
        chosen = ranked_indices(min(map(len, answers)), record, step, self._arguments)
        return np.concatenate([tokens[chosen] for tokens in answers])

    def _check(self, traces: TraceTokens, record: int, uses: tuple[bool, ...]) -> None:
        found = {(c.direction, c.held_out) for c in (self._commands[i - 1] for i in self._tokens[record] if i)}
        wanted = {(direction, use) for use in uses for direction in DIRECTIONS}
        missing = [f"with a {'held-out ' * use}{direction} command" for direction, use in sorted(wanted - found)]
        if NO_COMMAND not in self._tokens[record]:
            missing.append("without a command")
        if missing:
            raise InputError(f"{traces.directory}: record {record + 1} lacks its answer {missing[0]}; collect again")
