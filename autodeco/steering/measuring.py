"""Whether heads follow commands, in answers that the model draws with them to prompts and wordings that training never
saw."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from autodeco.data.checkers import check, checker
from autodeco.data.control import DEGREES, DIRECTIONS, NEUTRAL, PAPER_SHARES, REGISTERS
from autodeco.data.control_prompts import HELD_OUT_KINDS
from autodeco.data.problems import read_problems
from autodeco.data.statistics import distinct, interval, wilson
from autodeco.heads import Heads
from autodeco.rewards.policy import Policy, Sampled
from autodeco.runs.seeds import Stream, generator, seed_of
from autodeco.steering.answers import features, values
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.asking import (
    PLAIN,
    Asked,
    asked_in_measuring,
    chat,
    graded_in_measuring,
    quoted_in_measuring,
    worded,
)
from autodeco.steering.parts import measured_part

VALUES = ("temperature", "top_p")
COMMANDED = (PLAIN, *DIRECTIONS)


class Measuring:
    """Figures of ``heads``, beside those of ``base``, which they began as; each method draws answers of its own."""

    def __init__(
        self, policy: Policy, heads: Heads, base: Heads, steering: SteeringArguments, arguments: MeasuringArguments
    ):
        self._policy, self._heads, self._base = policy, heads.to(policy.device), base.to(policy.device)
        self._steering, self._arguments = steering, arguments
        self._part = measured_part(steering.validate)
        self._prompts = self._part.prompts(arguments.held_out_prompts, steering.seed)

    def all(self, say: Callable[[dict], None] = lambda figures: None) -> dict:
        """Return every figure; ``say`` is called with the figures of each part as they are known."""
        figures = {"settings": asdict(self._arguments) | {"max_tokens": self._steering.max_tokens}}
        parts = {"followed": self.followed, "scale": self.scale, "quoted": self.quoted, "held": self.held}
        parts["sums"] = self.sums
        for name, part in parts.items():
            if (name == "scale" and not self._arguments.scale) or (name == "sums" and not self._arguments.sums):
                continue
            figures[name] = part()
            say({name: figures[name]})
        return figures

    def followed(self) -> dict:
        """Return in how many prompts the mean of each value moves as the command says, and what becomes of answers."""
        asked = asked_in_measuring(self._prompts, self._steering.seed, self._part)
        flat = [row[variant] for row in asked for variant in COMMANDED]
        groups = self._draw(flat, self._arguments.answers, 0, keep_states=True)
        entropies = iter(self._entropies([answer for group in groups for answer in group]))
        shape = len(asked), len(COMMANDED)
        entropy = np.array([np.mean([next(entropies) for _ in group]) for group in groups]).reshape(shape)
        unique = np.array([distinct([a.text for a in group], 2) for group in groups]).reshape(shape)
        means = {value: mean_values(groups, value).reshape(shape) for value in VALUES}
        right = {
            (direction, value): (means[value][:, column] - means[value][:, 0]) * (-1 if direction == "low" else 1) > 0
            for column, direction in enumerate(DIRECTIONS, start=1)
            for value in VALUES
        }
        rows = [{"direction": d, "value": v, **share(right[d, v]), "paper": PAPER_SHARES[d, v]} for d, v in right]
        kinds = np.array([prompt.kind for prompt in self._prompts])
        registers = {d: np.array([row[d].register for row in asked]) for d in DIRECTIONS}
        return {
            "prompts": len(asked),
            "shares": rows,
            "levels": self._levels(groups, shape),
            "by_kind": {
                kind: {f"{d} {v}": share(right[d, v][kinds == kind])["share"] for d, v in right}
                | {"prompts": int((kinds == kind).sum()), "held_out_kind": kind in HELD_OUT_KINDS}
                for kind in dict.fromkeys(kinds.tolist())
            },
            "by_register": {
                f"{register}: {d} {v}": share(right[d, v][registers[d] == register])
                for register in REGISTERS
                for d, v in right
                if (registers[d] == register).any()
            },
            "means": {v: dict(zip(COMMANDED, means[v].mean(0).tolist(), strict=True)) for v in VALUES},
            "entropy": self._against_plain(entropy),
            "distinct_2": self._against_plain(unique) if self._arguments.answers > 1 else None,
            "examples": [self._example(groups, i) for i in range(min(6, len(asked)))],
        }

    def _levels(self, groups: list[list[Sampled]], shape: tuple[int, int]) -> dict:
        """Return the mean level that is read under no command and both, and the share of prompts in which it is below
        and above 0."""
        first = self._policy.states(np.array([group[0].states[0] for group in groups]))
        level = self._heads.level(first.float()).detach().cpu().double().numpy().reshape(shape)
        return {
            name: {"mean": float(of.mean()), "below": float((of < 0).mean()), "above": float((of > 0).mean())}
            for name, of in zip(COMMANDED, level.T, strict=True)
        }

    def scale(self) -> dict:
        """Return mean values by degree, and how well they are ordered: over the means, and prompt by prompt."""
        from scipy.stats import spearmanr

        asked = graded_in_measuring(self._prompts, self._steering.seed, self._part)
        groups = self._draw([each for row in asked for each in row], 1, 1)
        degrees, found = np.arange(DEGREES + 1), {"degrees": list(range(DEGREES + 1))}
        for value in VALUES:
            means = mean_values(groups, value).reshape(len(asked), -1)
            each = [float(spearmanr(degrees, row).statistic) if np.ptp(row) else 0.0 for row in means]
            found[value] = {
                "means": means.mean(0).tolist(),
                "spearman_of_means": float(spearmanr(degrees, means.mean(0)).statistic),
                "spearman_of_all": float(spearmanr(np.tile(degrees, len(means)), means.ravel()).statistic),
                "spearman_by_prompt": {"mean": float(np.mean(each)), "median": float(np.median(each))},
            }
        return found

    def quoted(self) -> dict:
        """Return how far a quoted command moves the means, beside how far the real one does."""
        asked, found = asked_in_measuring(self._prompts, self._steering.seed, self._part), {}
        for direction in DIRECTIONS:
            pairs = quoted_in_measuring(len(self._prompts), direction, self._steering.seed, self._part)
            groups = self._draw([each for pair in pairs for each in pair], 1, 2)
            real = self._draw([row[variant] for row in asked for variant in (PLAIN, direction)], 1, 2)
            for value in VALUES:
                twin = mean_values(groups, value).reshape(-1, 2)
                moved = mean_values(real, value).reshape(-1, 2)
                by_quote, by_command = twin[:, 0] - twin[:, 1], moved[:, 1] - moved[:, 0]
                low, high = interval(by_quote, generator(self._steering.seed, Stream.BOOTSTRAP))
                found[f"{direction} {value}"] = {
                    "quoted": float(by_quote.mean()),
                    "quoted_interval": [low, high],
                    "real": float(by_command.mean()),
                    "ratio": float(abs(by_quote.mean()) / max(abs(by_command.mean()), 1e-9)),
                }
        return found

    def held(self) -> dict:
        """Return how far heads are from those that they began as, in answers drawn with the latter without a
        command, and behind sentences that ask for nothing."""
        asked, found = asked_in_measuring(self._prompts, self._steering.seed, self._part), {}
        for variant in (PLAIN, NEUTRAL):
            groups = self._draw([row[variant] for row in asked], 1, 3, keep_states=True, heads=self._base)
            answers = [group[0] for group in groups]
            hidden = self._policy.states(np.concatenate([answer.states for answer in answers]))
            lengths = [len(answer.tokens) for answer in answers]
            owner = np.repeat(np.arange(len(answers)), lengths)
            both = (values(self._policy, heads, hidden, lengths) for heads in (self._base, self._heads))
            for value, before, after in zip(VALUES, *both, strict=True):
                moved = (after - before).double().cpu().numpy()
                by_text = np.bincount(owner, moved) / np.bincount(owner)
                found[f"{variant} {value}"] = {
                    "before": float(before.double().mean()),
                    "shift": float(moved.mean()),
                    "by_text": float(np.abs(by_text).mean()),
                    "by_token": float(np.abs(moved).mean()),
                }
        return found

    def sums(self) -> dict:
        """Return the accuracy on sums without a command and behind low ones, there also that of the first heads: what
        a command's words do to an answer by themselves."""
        prompts = self._part.sums(self._arguments.sums, self._steering.seed)
        commands = self._part.commands()["low"]
        flat = []
        for group, prompt in enumerate(prompts):
            command = commands[int(generator(self._steering.seed, Stream.WORDINGS, 4, group).integers(len(commands)))]
            flat += [Asked(group, PLAIN, 0.0, chat(prompt.text)), worded(group, prompt, "low", command)]
        plain, low = self._accuracy(prompts, flat, self._heads)
        _, before = self._accuracy(prompts, flat, self._base)
        return {
            "sums": len(prompts),
            "plain": float(plain.mean()),
            "low": float(low.mean()),
            **self._paired(low, plain),
            "first heads, low": float(before.mean()),
            "over first heads": self._paired(low, before),
        }

    def _accuracy(self, prompts, asked: Sequence[Asked], heads: Heads) -> np.ndarray:
        """Return the accuracy of ``heads`` on each of ``prompts``, without a command and with one [2, sums]."""
        groups = self._draw(asked, self._arguments.sum_answers, 4, heads=heads)
        right = [[check(number, {"answer": prompts[i // 2].answer}, a.text) for a in g] for i, g in enumerate(groups)]
        return np.array([np.mean(row) for row in right]).reshape(-1, 2).T

    def problems(self, path, checked_by: str, samples: int) -> dict:
        """Return pass@1 on the problems in the file ``path`` of ``base`` and of ``heads``, and the difference."""
        problems, judge = read_problems(path), checker(checked_by)
        ids = [self._policy.prompt_ids(problem["prompt"], problem.get("tools")) for problem in problems]
        rates = []
        for heads in (self._base, self._heads):
            groups = self._policy.sample(ids, samples, heads, self._seed(5), keep_states=False)
            pairs = zip(problems, groups, strict=True)
            rates.append(np.array([np.mean([check(judge, p, a.text) * a.finished for a in g]) for p, g in pairs]))
        return {
            "problems": len(problems),
            "samples": samples,
            "base": float(rates[0].mean()),
            "control": float(rates[1].mean()),
            **self._paired(rates[1], rates[0]),
        }

    def _draw(self, asked: Sequence[Asked], n: int, part: int, keep_states=False, heads=None) -> list[list[Sampled]]:
        """Return ``n`` answers to each; the readings of one prompt have the same random numbers."""
        return self._policy.sample(
            [self._policy.prompt_ids(each.prompt) for each in asked],
            n,
            heads or self._heads,
            self._seed(part),
            keep_states=keep_states,
            numbers=[each.group for each in asked],
            max_tokens=self._steering.max_tokens,
        )

    def _seed(self, part: int) -> int:
        return seed_of(self._steering.seed, Stream.HELD_OUT_ANSWERS, part)

    def _entropies(self, answers: Sequence[Sampled]) -> np.ndarray:
        """Return for each answer the mean entropy, in nats, of softmax(logits / T) over its tokens."""
        import torch

        hidden = self._policy.states(np.concatenate([answer.states for answer in answers]))
        temperature = torch.from_numpy(np.concatenate([answer.temperature for answer in answers])).to(hidden.device)
        known = features(self._policy, hidden, temperature)
        owner = np.repeat(np.arange(len(answers)), [len(answer.tokens) for answer in answers])
        return np.bincount(owner, known[:, 1].double().cpu().numpy()) / np.bincount(owner)

    def _against_plain(self, by_prompt: np.ndarray) -> dict:
        """Return means of ``by_prompt`` [prompts, plain low high], and differences from plain with their intervals."""
        found = dict(zip(COMMANDED, by_prompt.mean(0).tolist(), strict=True))
        for column, direction in enumerate(DIRECTIONS, start=1):
            found[f"{direction} over plain"] = self._paired(by_prompt[:, column], by_prompt[:, 0])
        return found

    def _paired(self, ours: np.ndarray, theirs: np.ndarray) -> dict:
        low, high = interval(ours - theirs, generator(self._steering.seed, Stream.BOOTSTRAP))
        return {"difference": float((ours - theirs).mean()), "low_end": low, "high_end": high}

    def _example(self, groups: list[list[Sampled]], index: int) -> dict:
        """Return one prompt's answers under no command and both, token by token."""
        shown = groups[index * len(COMMANDED) : (index + 1) * len(COMMANDED)]
        return {
            "prompt": self._prompts[index].text,
            "answers": {
                variant: {
                    "tokens": self._policy.token_texts(group[0].tokens.tolist()),
                    "temperature": [round(float(t), 4) for t in group[0].temperature],
                    "top_p": [round(float(p), 4) for p in group[0].top_p],
                }
                for variant, group in zip(COMMANDED, shown, strict=True)
            },
        }


number = checker("number")


def mean_values(groups: Sequence[Sequence[Sampled]], value: str, count: int | None = None) -> np.ndarray:
    """Return the mean of ``value`` over the first ``count`` tokens, by default all, of each group's first answer."""
    return np.array([float(np.mean(getattr(group[0], value)[:count], dtype=np.float64)) for group in groups])


def share(right: np.ndarray) -> dict:
    """Return the share of ``right`` with its 95% Wilson interval."""
    low, high = wilson(int(right.sum()), len(right))
    return {"share": float(right.mean()), "low_end": low, "high_end": high}
