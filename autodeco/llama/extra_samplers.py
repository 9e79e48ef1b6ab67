"""XTC, DRY and top-n-sigma: samplers of llama.cpp that ``llama_cpp.Llama`` has no parameters for."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import llama_cpp
from llama_cpp._internals import LlamaSampler

from autodeco.errors import InputError
from autodeco.features import dry_sampler
from autodeco.llama.asked import check_texts
from autodeco.settings.options import checked

# what llama_cpp.Llama's chain ends in where it draws by temperature: top-k, typical, top-p, min-p; temperature, draw
STOCK_CUTS, STOCK_DRAW = 4, 2


@dataclass(frozen=True)
class ExtraSamplers:
    """Settings named and meant as in llama.cpp's programs; the defaults switch all of them off.

    DRY looks at the generated tokens only, as the penalties of ``llama_cpp.Llama`` do; ``dry_penalty_last_n`` -1 is all
    of the context. XTC has random numbers of its own from the generation's seed. Raises InputError for values that make
    no sense.
    """

    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    top_n_sigma: float = -1.0

    def __post_init__(self):
        for name, (least, most) in LIMITS.items():
            checked(name, getattr(self, name), float, least, most)
        breakers = self.dry_sequence_breakers
        if isinstance(breakers, str) or not all(isinstance(breaker, str) and breaker for breaker in breakers):
            raise InputError(f"dry_sequence_breakers {breakers!r}: must be a list of texts that are not empty")
        check_texts("dry_sequence_breakers", list(breakers))

    def penalties(self, llm: llama_cpp.Llama) -> list["llama_cpp.llama_sampler_p"]:
        """New samplers for the logits before any temperature."""
        if self.dry_multiplier == 0.0:
            return []
        breakers = [breaker.encode() for breaker in self.dry_sequence_breakers]
        last_n = llm.n_ctx() if self.dry_penalty_last_n < 0 else self.dry_penalty_last_n
        array = (ctypes.c_char_p * len(breakers))(*breakers)
        settings = self.dry_multiplier, self.dry_base, int(self.dry_allowed_length), int(last_n)
        return [
            dry_sampler(llm._model.vocab, llama_cpp.llama_model_n_ctx_train(llm.model), *settings, array, len(breakers))
        ]

    def first_cuts(self) -> list["llama_cpp.llama_sampler_p"]:
        """New samplers that cut before top-k, typical and min-p do."""
        return [llama_cpp.llama_sampler_init_top_n_sigma(self.top_n_sigma)] if self.top_n_sigma > 0.0 else []

    def last_cuts(self, seed: int) -> list["llama_cpp.llama_sampler_p"]:
        """New samplers that cut after those."""
        if self.xtc_probability == 0.0:
            return []
        return [llama_cpp.llama_sampler_init_xtc(self.xtc_probability, self.xtc_threshold, 1, seed & 0xFFFFFFFF)]

    def insert(self, chain: LlamaSampler, settings: dict[str, Any], llm: llama_cpp.Llama, seed: int) -> None:
        """Put them into a chain of ``llama_cpp.Llama``, where llama.cpp's programs have them."""
        if self == OFF:
            return
        draws = settings["temp"] > 0.0 and settings["mirostat_mode"] == 0
        last = [taken_off(chain) for _ in range(STOCK_CUTS + STOCK_DRAW if draws else 1)][::-1]
        stages = self.penalties(llm)
        if draws:
            cuts, draw = last[:STOCK_CUTS], last[STOCK_CUTS:]
            stages += [*self.first_cuts(), *cuts, *self.last_cuts(seed), *draw]
        else:
            stages += last
        for stage in stages:
            llama_cpp.llama_sampler_chain_add(chain.sampler, stage)


LIMITS = {
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dry_multiplier": (0.0, 1e6),
    "dry_base": (1.0, 1e6),
    "dry_allowed_length": (0, 2**30),
    "dry_penalty_last_n": (-1, 2**30),
    "top_n_sigma": (-1.0, 1e6),
}
OFF = ExtraSamplers()
DEFAULTS = {field.name: field.default for field in fields(ExtraSamplers)}


def taken_off(chain: LlamaSampler) -> "llama_cpp.llama_sampler_p":
    """Remove and return the last sampler of ``chain``; the caller owns it now."""
    last = llama_cpp.llama_sampler_chain_n(chain.sampler) - 1
    return llama_cpp.llama_sampler_chain_remove(chain.sampler, last)
