"""What llama.cpp's memory of a sequence can do, which differs between architectures."""

import llama_cpp

WHOLE_SEQUENCES = {"deepseek4"}  # whose compressed states are of all tokens before, though llama.cpp calls it neither


def can_cut(llm: llama_cpp.Llama) -> bool:
    """Whether the last tokens of a sequence can be forgotten, or its first ones copied. The state of a recurrent model
    is one for all tokens before."""
    return not (
        llama_cpp.llama_model_is_recurrent(llm.model)
        or llama_cpp.llama_model_is_hybrid(llm.model)
        or llm.metadata.get("general.architecture") in WHOLE_SEQUENCES
    )
