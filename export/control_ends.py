"""What a control head steers to: the ends of its level, and how large a level has no effect."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from autodeco.errors import InputError
from autodeco.export.schema import CONTROL_PREFIX, TEMPERATURE_SCALE


@dataclass(frozen=True)
class ControlEnds:
    """Temperature and top-p at the ends of the level, and the dead zone around 0.

    At level -1 both are multiplied by ``low_temperature_factor`` and ``low_top_p_factor``, in [0, 1]. At level 1 they
    are at least ``high_temperature``, in (0, 2), and ``high_top_p``, in (0, 1). Levels within ``dead_zone``, in [0, 1),
    count as 0. The numbers are those that float32 holds. Raises InputError for others.
    """

    low_temperature_factor: float = 0.1
    high_temperature: float = 1.2
    low_top_p_factor: float = 0.5
    high_top_p: float = 0.998
    dead_zone: float = 0.0

    def __post_init__(self):
        for name in END_NAMES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InputError(f"control: {name} is {value!r}, expected a number")
            try:
                with np.errstate(over="ignore"):
                    held = float(str(np.float32(value)))  # the shortest number that float32 holds as this one
            except OverflowError:  # a whole number beyond every float
                held = math.inf
            if not _RANGES[name](held):
                raise InputError(f"control: {name} is {value}, expected a number {_SAID[name]}")
            object.__setattr__(self, name, held)

    @classmethod
    def read(cls, given: object, source: str) -> "ControlEnds":
        """Return the ends that ``given`` maps their names to; raises InputError, which names ``source``, for anything
        but five numbers that are in range."""
        if not isinstance(given, Mapping) or set(given) != set(END_NAMES):
            raise InputError(f"{source}: its control must hold {', '.join(END_NAMES)}; export or fetch the heads again")
        try:
            return cls(**given)
        except InputError as error:
            raise InputError(f"{source}: {error}; export or fetch the heads again") from None


END_NAMES = tuple(field.name for field in fields(ControlEnds))
END_KEYS = {name: CONTROL_PREFIX + name for name in END_NAMES}
_RANGES = {
    "low_temperature_factor": lambda x: 0 <= x <= 1,
    "high_temperature": lambda x: math.isfinite(x) and 0 < x < TEMPERATURE_SCALE,
    "low_top_p_factor": lambda x: 0 <= x <= 1,
    "high_top_p": lambda x: 0 < x < 1,
    "dead_zone": lambda x: 0 <= x < 1,
}
_SAID = {
    "low_temperature_factor": "from 0 to 1",
    "high_temperature": "above 0 and below 2",
    "low_top_p_factor": "from 0 to 1",
    "high_top_p": "above 0 and below 1",
    "dead_zone": "from 0 to below 1",
}
