"""Default and largest values of what llama.cpp is asked for. autodeco-cli has the same (cpp_ext/cli/options.h)."""

MOST_THREADS = 512  # GGML_MAX_N_THREADS: llama.cpp does not survive more
PROMPT_BATCH = 512  # tokens of a prompt that are decoded at once
DEFAULT_CONTEXT = 4096  # tokens; a model that is trained for fewer gets as many as that
