"""What llama.cpp's memory of a sequence can do, which differs between architectures."""

import llama_cpp

WHOLE_SEQUENCES = {"deepseek4"}  # whose compressed states are of all tokens before, though llama.cpp calls it neither

# Whose layers mix the prompts of sequences that are decoded in one batch (llama.cpp's plamo2.cpp); one token of each is
# computed well.
ONE_PROMPT_A_BATCH = {"plamo2"}


def can_cut(llm: llama_cpp.Llama) -> bool:
    """Whether the last tokens of a sequence can be forgotten, or its first ones copied. The state of a recurrent model
    is one for all tokens before."""
    return not (
        llama_cpp.llama_model_is_recurrent(llm.model)
        or llama_cpp.llama_model_is_hybrid(llm.model)
        or llm.metadata.get("general.architecture") in WHOLE_SEQUENCES
    )


def can_join_prompts(llm: llama_cpp.Llama) -> bool:
    """Whether prompts of several sequences can be decoded in one batch."""
    return llm.metadata.get("general.architecture") not in ONE_PROMPT_A_BATCH
