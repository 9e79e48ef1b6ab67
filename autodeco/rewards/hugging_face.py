"""A Hugging Face model as a policy: answers drawn in batches, and the hidden states that were on the way."""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.hugging_face.decoding import Decoder
from autodeco.hugging_face.draw import draw
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.rewards.answer_trees import Tokens
from autodeco.rewards.policy import Sampled, Wanted

Predictor = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # heads: (hidden, logits) to (temperature, top-p)
LOOK_EVERY = 8  # steps between looks whether all answers have ended, for which a GPU has to be waited for


class HuggingFacePolicy:
    """The model at ``path``, or a loaded one, answering in at most ``max_tokens`` tokens, ``slots`` answers at a time.

    The base is frozen, so the states behind the tokens of the answers drawn last are kept (2 x H bytes a token in
    bfloat16) and not computed again. Logits are float32, from a copy of the output matrix: in bfloat16, steps of 1/8 at
    a logit of 20 would be a factor of 3.5 between probabilities at T 0.1, and ties at T 0. Raises InputError for a
    model that cannot be used so.
    """

    rank = 0

    def __init__(
        self, path: str | os.PathLike | HuggingFaceModel, max_tokens: int, slots: int, device: str, dtype: str
    ):
        self._max_tokens, self._slots, self.device = max_tokens, slots, device
        self._frozen = path if isinstance(path, HuggingFaceModel) else HuggingFaceModel(path, dtype)
        self._frozen.language_model.to(device)
        self.model, self._tokenizer = self._frozen.model, self._frozen.tokenizer
        output = self._frozen.language_model.get_output_embeddings()
        self._matrix = output.weight.float()
        self._bias = None if getattr(output, "bias", None) is None else output.bias.float()
        self._ends = torch.tensor(sorted(self._tokenizer.ends), device=device)
        self._decoder: Decoder | None = None
        # Of the answers drawn last: hidden states [n, H]; by prompt (answer, place of its first state, and from one to
        # the next).
        self._states = torch.empty(0)
        self._drawn: dict[Tokens, list[tuple[Tokens, int, int]]] = {}
        self._check_logits()

    def prompt_ids(self, prompt) -> list[int]:
        return self._tokenizer.prompt_ids(prompt)

    def sample(self, prompts: Sequence[Sequence[int]], n: int, heads: Predictor, seed: int) -> list[list[Sampled]]:
        """Return ``n`` answers to each prompt. Random numbers depend on the seed and the place of an answer alone."""
        places = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(n)]
        rows = min(self._slots, len(places))
        self._room(rows, [len(prompt) for prompt in prompts])
        self._states, self._drawn, states, kept = torch.empty(0), {}, [], 0
        uniforms = np.stack([_uniforms(seed, prompt, n, self._max_tokens) for prompt in range(len(prompts))])
        answers = [[None] * n for _ in prompts]
        for start in range(0, len(places), rows):
            here = places[start : start + rows]
            filled = here + here[:1] * (rows - len(here))  # every batch has as many rows
            drawn = torch.from_numpy(np.stack([uniforms[place] for place in filled])).to(self.device)
            batch, hidden = self._batch(prompts, [prompt for prompt, _ in filled], heads, drawn)
            for row, ((prompt, sample), answer) in enumerate(zip(here, batch, strict=False)):
                answers[prompt][sample] = answer
                self._drawn.setdefault(tuple(prompts[prompt]), []).append((answer.tokens, kept + row, rows))
            states.append(hidden)
            kept += len(hidden)
        self._states = torch.cat(states)
        return answers

    def states(self, wanted: Wanted) -> Iterator[tuple[Tensor, list[tuple[int, Tokens]]]]:
        found = []
        for index, (prompt, edges) in enumerate(wanted):
            left = set(edges)
            for tokens, first, stride in self._drawn.get(tuple(prompt), ()):
                for t in range(len(tokens)):
                    if (edge := tokens[: t + 1]) in left:
                        left.remove(edge)
                        found.append((first + t * stride, index, edge))
            if left:
                raise ValueError("states are kept of the answers drawn last only")
        if found:
            places, indices, edges = zip(*found, strict=True)
            yield self._states[torch.tensor(places, device=self.device)].float(), list(zip(indices, edges, strict=True))

    def summed(self, values: Tensor) -> Tensor:
        return values

    def pieces(self, tokens: list[int]) -> list[str]:
        return [self._tokenizer.text([token]) for token in tokens]

    @torch.no_grad()
    def _batch(self, prompts, owners: list[int], heads: Predictor, uniforms: Tensor) -> tuple[list[Sampled], Tensor]:
        """Return an answer for each row, which begins with the prompt ``owners[row]``, and the states behind them.

        ``uniforms`` [rows, steps, 2]; states [steps * rows, H].
        """
        distinct = {owner: place for place, owner in enumerate(dict.fromkeys(owners))}
        places = torch.tensor([distinct[owner] for owner in owners])
        hidden = self._decoder.start([prompts[owner] for owner in distinct], places)
        states, columns = [], []
        ended = torch.zeros(len(owners), dtype=torch.bool, device=self.device)
        for step in range(self._max_tokens):
            logits = self.logits(hidden)
            temperature, top_p = heads(hidden.float(), logits)
            tokens = draw(logits, temperature, top_p, uniforms[:, step])
            states.append(hidden.clone())
            columns.append((tokens, temperature, top_p))
            ended |= torch.isin(tokens, self._ends)
            if step + 1 == self._max_tokens or (step % LOOK_EVERY == 0 and ended.all()):
                break
            hidden = self._decoder.step(tokens)
        tokens, temperature, top_p = (torch.stack(column, 1).cpu().numpy() for column in zip(*columns, strict=True))
        return [self._sampled(*row) for row in zip(tokens, temperature, top_p, strict=True)], torch.cat(states)

    def _sampled(self, tokens: np.ndarray, temperature: np.ndarray, top_p: np.ndarray) -> Sampled:
        ids = tokens.tolist()
        end = next((t for t, token in enumerate(ids) if token in self._tokenizer.ends), None)
        size = len(ids) if end is None else end + 1
        text = self._tokenizer.text(ids[:size] if end is None else ids[:end])
        return Sampled(tuple(ids[:size]), text, end is not None, temperature[:size], top_p[:size])

    def _room(self, rows: int, lengths: list[int]) -> None:
        """Have a decoder for batches of ``rows`` that holds prompts of ``lengths``."""
        now, prompt_tokens = self._decoder, max(lengths)
        if min(lengths) == 0:
            raise InputError("a prompt has no tokens; nothing predicts a first one")
        limit = getattr(self._frozen.language_model.config.get_text_config(), "max_position_embeddings", None)
        if limit and prompt_tokens + self._max_tokens > limit:
            raise InputError(
                f"{self.model.name}: a prompt has {prompt_tokens} tokens, with {self._max_tokens} for the answer more "
                f"than the {limit} that the model has positions for"
            )
        if now is None or now.rows != rows or now.prompt_tokens < prompt_tokens:
            self._decoder = None  # its memory first
            self._decoder = Decoder(self._frozen, rows, prompt_tokens, self._max_tokens)

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [n, V] of hidden states [n, H], float32."""
        logits = torch.nn.functional.linear(hidden.float(), self._matrix, self._bias)
        cap = getattr(self._frozen.language_model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    @torch.no_grad()
    def _check_logits(self) -> None:
        """Raise InputError if the model does to its logits what ``logits`` does not know."""
        tokens = torch.arange(8, device=self.device)[None]
        theirs = self._frozen.language_model(input_ids=tokens, use_cache=False).logits[0].float()
        ours = self.logits(self._frozen.hidden[0])
        if not torch.allclose(theirs, ours, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
            raise InputError(
                f"{self.model.name}: its logits are not its output matrix times the hidden state; draw with llama.cpp"
            )


def _uniforms(seed: int, prompt: int, n: int, steps: int) -> np.ndarray:
    """Return [n, steps, 2] random numbers for the answers to one prompt."""
    return np.random.default_rng([seed, prompt]).random((n, steps, 2), dtype=np.float32)
