"""The values of each generated token: temperature, top-p, nucleus and probability."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class TokenDecoding(NamedTuple):
    """One token and the values it was sampled with; the fields are those of ``Decoding``."""

    token: int
    temperature: float
    top_p: float
    nucleus: int
    prob: float


@dataclass(frozen=True)
class Decoding:
    """The tokens of one generation and the values they were sampled with, arrays of the same length n.

    ``temperature`` and ``top_p`` are the heads' predictions, before the caller's multipliers. ``nucleus`` is the number
    of tokens in the nucleus, ``prob`` the probability of the sampled token within it.
    """

    token: npt.NDArray[np.int32]
    temperature: npt.NDArray[np.float32]
    top_p: npt.NDArray[np.float32]
    nucleus: npt.NDArray[np.int32]
    prob: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.token)

    def to_dict(self) -> dict[str, list]:
        """The same as lists of Python numbers, for JSON."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    @classmethod
    def from_rows(cls, rows: list[tuple[int, float, float, int, float]]) -> "Decoding":
        """Build from a row (token, temperature, top-p, nucleus size, probability) a token."""
        token, temperature, top_p, nucleus, prob = zip(*rows, strict=True) if rows else ([],) * 5
        return cls(
            np.array(token, np.int32),
            np.array(temperature, np.float32),
            np.array(top_p, np.float32),
            np.array(nucleus, np.int32),
            np.array(prob, np.float32),
        )
