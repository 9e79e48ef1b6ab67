"""A pytest plugin for llama-cpp-python's own tests: autodeco.Llama in place of llama_cpp.Llama, without a network.

Where a test wants some transformer from a hub, SmolLM2 with heads (AUTODECO_TEST_HEADS) stands in; where it wants a
certain model's words or another architecture, it is skipped.
"""

import os

import huggingface_hub
import llama_cpp
import pytest

import autodeco
from autodeco.base.opening import default_model

STAND_IN = str(default_model())


class Llama(autodeco.Llama):
    def __init__(self, model_path, **kwargs):
        heads = os.environ["AUTODECO_TEST_HEADS"] if model_path == STAND_IN else None
        super().__init__(model_path, heads, **kwargs)


def download(repo_id, filename, **kwargs):
    if filename.startswith("tinyllamas/"):
        return STAND_IN
    pytest.skip(f"needs {repo_id} from a hub")


llama_cpp.Llama = Llama
huggingface_hub.hf_hub_download = download
