"""Keys and tensor names of heads in GGUF files (docs/export.md), and the numbers of the method."""

# A file has the second version if and only if it has a control head.
VERSION, CONTROL_VERSION = 1, 2

# The hidden layer of both heads and the scale of the temperature head are fixed by the method (arXiv 2510.26697, 3.1).
# The C++ has these numbers in cpp_ext/src/method.h.
HEAD_WIDTH = 256
TEMPERATURE_SCALE = 2.0
STATS_EPSILON = 1e-8  # its official implementation adds it to T, and to q inside the logarithm, in the statistics
GREEDY_TEMPERATURE = 1e-5  # below it the likeliest token is taken
# Far above any model (the largest are near 16k); what is larger is refused before it is read.
MAX_HIDDEN_SIZE = 1 << 16
MAX_VOCAB_SIZE = 1 << 30
# What the top-p head sees beside the hidden state: the temperature, and four statistics when `prob_stats` is set.
EXTRA_PLAIN = 1
EXTRA_PROB_STATS = 5

KEY_VERSION = "autodeco.version"
KEY_EMBEDDING_LENGTH = "autodeco.embedding_length"
KEY_VOCAB_SIZE = "autodeco.vocab_size"
KEY_TEMPERATURE_SCALE = "autodeco.temperature.scale"
KEY_PROB_STATS = "autodeco.top_p.prob_stats"
KEY_BASE_NAME = "autodeco.base_model.name"
KEY_BASE_FINGERPRINT = "autodeco.base_model.fingerprint"
KEY_BASE_FILE_SIZE = "autodeco.base_model.file_size"  # merged only
KEY_PADDING = "autodeco.padding"  # merged only
KEY_PREFIX = "autodeco."
CONTROL_PREFIX = "autodeco.control."  # before the names of ``control_ends.ControlEnds``
KEY_HEADS = "autodeco.heads"  # embedded only, as the next two
ADDED_PREFIX = "autodeco.added."  # before a key that the model's own file does not have
REPLACED_PREFIX = "autodeco.replaced."  # before a key that has another value there: this one

# What held-out problems said of the heads, by fields of ``evaluation.Evaluation``: all of them, or none.
EVALUATION_PREFIX = "autodeco.evaluation."
EVALUATION_KEYS = {
    field: EVALUATION_PREFIX + name
    for field, name in (
        ("verdict", "verdict"),
        ("target", "target"),
        ("problems", "problems"),
        ("samples", "samples"),
        ("heads", "heads"),
        ("greedy", "greedy"),
        ("static", "static"),
        ("static_setting", "static.setting"),
        ("over_greedy", "over_greedy.difference"),
        ("over_greedy_low", "over_greedy.low"),
        ("over_greedy_high", "over_greedy.high"),
        ("over_static", "over_static.difference"),
        ("over_static_low", "over_static.low"),
        ("over_static_high", "over_static.high"),
        ("model", "model.fingerprint"),
    )
}

KEY_TYPE = "general.type"
KEY_ADAPTER_TYPE = "adapter.type"
KEY_ARCHITECTURE = "general.architecture"
KEY_ALIGNMENT = "general.alignment"
KEY_SPLIT_COUNT = "split.count"
KEY_SPLIT_NO = "split.no"
KEY_NAME = "general.name"
KEY_BASES = "general.base_model.count"  # what a file is made for, as llama.cpp's converters say it
KEY_FIRST_BASE = "general.base_model.0.name"
KEY_AUTHOR = "general.author"
KEY_LICENSE = "general.license"
KEY_URL = "general.url"
DESCRIPTION_KEYS = (KEY_NAME, KEY_AUTHOR, KEY_LICENSE, KEY_URL)
GENERAL_TYPE = "adapter"
ADAPTER_TYPE = "autodeco"

BASE_GGUF = "autodeco.base_gguf"
BASE_TAIL = "autodeco.base_tail"
TENSOR_PREFIX = "autodeco."

TEMP_HEAD = "temp_head"
TOP_P_HEAD = "top_p_head"
CONTROL_HEAD = "control_head"
HEADS = (TEMP_HEAD, TOP_P_HEAD, CONTROL_HEAD)
TOP_P_EXTRA = "autodeco.top_p_head.0.extra.weight"
PARTS = ("0.weight", "0.bias", "2.weight", "2.bias")


def official_name(head: str, part: str) -> str:
    """Name of one parameter in a checkpoint, for example ``temp_head.mlp.0.weight``."""
    return f"{head}.mlp.{part}"


def tensor_name(head: str, part: str) -> str:
    """Name of one parameter in a GGUF file, for example ``autodeco.temp_head.0.weight``."""
    return f"{TENSOR_PREFIX}{head}.{part}"
