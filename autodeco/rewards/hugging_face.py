"""A Hugging Face model as a policy: answers sampled many at a time, and the hidden states that predicted their
tokens."""

import inspect
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autodeco.errors import InputError
from autodeco.hugging_face.decoder import Decoder
from autodeco.hugging_face.kept_states import KeptStates
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.hugging_face.slots import SlotAnswer, Slots, fitting
from autodeco.rewards.policy import Ended, Predictor, Sampled
from autodeco.training.processes import Processes

GRANULE = 64  # lengths of a decoder are multiples of this, so that a slightly longer prompt needs no other


class HuggingFacePolicy:
    """The model at ``path``, or a loaded one, answering in at most ``max_tokens`` tokens, ``slots`` answers at a time.

    The base is frozen, so the states of the answers sampled last are kept and not computed again. In bfloat16 they take
    2 x H bytes for each token, and for each of slots x max_tokens while sampling. Logits are float32: in bfloat16,
    steps of 1/8 at a logit of 20 would be a factor of 3.5 between probabilities at T 0.1, and ties at T 0. Raises
    InputError for a model that cannot be used as a policy.
    """

    def __init__(
        self,
        path: str | os.PathLike | HuggingFaceModel,
        max_tokens: int,
        slots: int,
        device: str,
        dtype: str,
    ):
        self._max_tokens, self._slots = max_tokens, slots
        self.processes = Processes(device)
        self.rank, self.device = self.processes.rank, self.processes.device
        device = self.device
        self._frozen = path if isinstance(path, HuggingFaceModel) else HuggingFaceModel(path, dtype)
        self._frozen.network.to(device)
        found = getattr(self._frozen.network.config.get_text_config(), "max_position_embeddings", None)
        self.context = found if isinstance(found, int) and found > 0 else None
        self.identity, self._tokenizer = self._frozen.identity, self._frozen.tokenizer
        output = self._frozen.network.get_output_embeddings()
        self._adds_wide = _adds_wide(output.weight)
        exact = self._adds_wide or output.weight.dtype == torch.float64
        self._matrix = output.weight if exact else output.weight.float()
        bias = getattr(output, "bias", None)
        self._bias = bias if bias is None else bias.to(torch.float32 if self._adds_wide else self._matrix.dtype)
        self._ends = torch.tensor(sorted(self._tokenizer.ends), device=device)
        self._decoder: Decoder | None = None
        self._kept = self._no_states()
        self._check_logits()

    def prompt_ids(self, prompt, tools=None) -> list[int]:
        """Return the tokens of a prompt, text or messages."""
        return self._tokenizer.prompt_ids(prompt, tools)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        heads: Predictor,
        seed: int,
        keep_states: bool = True,
        ended: Ended | None = None,
        numbers: Sequence[int] | None = None,
        max_tokens: int | None = None,
        blur: float = 0.0,
    ) -> list[list[Sampled]]:
        """Return ``n`` answers to each prompt; random numbers depend only on the seed, the prompt's number and the
        answer's index.

        ``keep_states`` replaces the states kept before; without it those are dropped. ``blur`` is noise on top-p, as in
        ``Slots``. ``ended`` is called with every
        answer as it ends. Raises InputError for a prompt that is empty or too long, and for a model whose layers forget
        keys or whose logits are not numbers.
        """
        self._kept = self._no_states()  # their memory first
        answers: list[list[Sampled]] = [[None] * n for _ in prompts]
        if not prompts or not n:
            return answers
        self._have_room(prompts)
        kept = self._kept if keep_states else None
        settings = heads, prompts, n, self._ends, max_tokens or self._max_tokens, int(seed) % 2**64, kept, numbers, blur
        for answer in Slots(self._decoder, self.logits, *settings):
            prompt, sample = divmod(answer.index, n)
            answers[prompt][sample] = self._sampled(answer, keep_states)
            if ended is not None:
                ended(prompt, sample, answers[prompt][sample])
        return answers

    @torch.no_grad()
    def end_states(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the hidden states [n, H] that answers to ``prompts`` begin from, in the model's dtype, without drawing
        any; prompts of one length should follow each other.

        Raises InputError as ``sample``.
        """
        self._have_room(prompts)
        found, first = [], 0
        while first < len(prompts):
            last = fitting(prompts, first)
            found.append(self._decoder.prefill(prompts[first:last]).hidden)
            first = last
        return torch.cat(found)

    def states(self, rows: np.ndarray) -> Tensor:
        """Return the hidden states [k, H] of numbers ``rows`` [k], in the model's dtype; raises IndexError for numbers
        that the last ``sample`` did not keep."""
        return self._kept[rows]

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [n, V] of hidden states [n, H], float32."""
        if self._adds_wide:
            # Products of the operands' bits are exact in float32, so this differs from a float32 copy of the matrix in
            # the order of the sum alone.
            logits = torch.mm(hidden.to(self._matrix.dtype), self._matrix.t(), out_dtype=torch.float32)
            logits = logits if self._bias is None else logits.add_(self._bias)
        else:
            logits = torch.nn.functional.linear(hidden.to(self._matrix.dtype), self._matrix, self._bias).float()
        cap = getattr(self._frozen.network.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def token_texts(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token."""
        return self._tokenizer.token_texts(tokens)

    def _sampled(self, answer: SlotAnswer, keep_states: bool) -> Sampled:
        if np.isnan(answer.top_probability).any():
            raise InputError(f"{self.identity.name}: it gives logits that are not numbers; load it as float32")
        ids = answer.tokens.tolist()
        finished = ids[-1] in self._tokenizer.ends
        states = answer.first_state + np.arange(len(ids) if keep_states else 0)
        text = self._tokenizer.answer_text(ids)
        return Sampled(
            answer.tokens, text, finished, answer.temperature, answer.top_p, answer.top_probability, states
        )  # fmt: skip

    def _have_room(self, prompts: Sequence[Sequence[int]]) -> None:
        """Have a decoder that holds ``prompts`` with their answers."""
        lengths = [len(prompt) for prompt in prompts]
        if min(lengths) == 0:
            raise InputError("a prompt has no tokens; nothing predicts a first one")
        limit = getattr(self._frozen.network.config.get_text_config(), "max_position_embeddings", None)
        length = max(lengths) + self._max_tokens
        if limit and length > limit:
            raise InputError(
                f"{self.identity.name}: a prompt has {max(lengths)} tokens, with {self._max_tokens} for the answer "
                f"more than the {limit} that the model has positions for"
            )
        if self._decoder is None or self._decoder.length < length:
            self._decoder = None  # its memory first
            self._decoder = Decoder(self._frozen, self._slots, -(-length // GRANULE) * GRANULE)

    def _no_states(self) -> KeptStates:
        return KeptStates(self._matrix.shape[1], self._frozen.network.dtype, self._matrix.device)

    @torch.no_grad()
    def _check_logits(self) -> None:
        """Raise InputError if the model does to its logits what ``logits`` does not know."""
        tokens = torch.arange(8, device=self.device)[None]
        theirs = self._frozen.network(input_ids=tokens, use_cache=False).logits[0].float()
        ours = self.logits(self._frozen.hidden[0])
        if not torch.allclose(theirs, ours, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
            raise InputError(
                f"{self.identity.name}: its logits are not its output matrix times the hidden state; "
                "draw with llama.cpp"
            )


def _adds_wide(matrix: Tensor) -> bool:
    """Whether torch multiplies by ``matrix`` with sums and results in float32."""
    narrow = matrix.dtype in (torch.bfloat16, torch.float16)
    return matrix.is_cuda and narrow and "out_dtype" in (inspect.getdoc(torch.mm) or "")
