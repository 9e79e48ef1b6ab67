"""A cache of transformers whose rows have lengths of their own, and the attention of one new token a row over it."""

from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import CacheLayerMixin

ATTENTION = "autodeco_slots"
UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some models ask of their attention beyond the ordinary


class SlotLayer(CacheLayerMixin):
    """Keys and values [rows, kv_heads, length, D] of one layer, the first ``lengths`` [rows] of each row in use.

    ``rows`` are their numbers. A new token is written after those in use; the owner of ``lengths`` counts it.
    """

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, lengths: Tensor):
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True
        self._at = rows, slice(None), lengths

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is missing."""

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write [rows, kv_heads, 1, D] each; return all keys and values."""
        self.keys[self._at] = key_states[:, :, 0]
        self.values[self._at] = value_states[:, :, 0]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (length, offset) of a mask."""
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        """Return the room for tokens; positions are given, never counted from this."""
        return self.keys.shape[2]

    def get_max_length(self) -> int:
        """Return the room for tokens."""
        return self.keys.shape[2]

    get_max_cache_shape = get_max_length  # its name in transformers before 5.10


def _attend(module, query, keys, values, attention_mask, scaling=None, slot_lengths=None, **kwargs):
    """Attention of transformers' interface, to the first ``slot_lengths`` [rows] keys of each row."""
    from autodeco.hugging_face.slot_attention_triton import attend

    if slot_lengths is None or any(kwargs.get(name) is not None for name in UNKNOWN):
        raise NotImplementedError
    return attend(query, keys, values, slot_lengths, query.shape[-1] ** -0.5 if scaling is None else scaling), None


AttentionInterface.register(ATTENTION, _attend)
