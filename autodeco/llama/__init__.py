"""``autodeco.Llama``: one stream of tokens, with heads inside the graph."""

from autodeco.llama.llama import Llama

__all__ = ["Llama"]
