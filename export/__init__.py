"""Exporting: heads of every checkpoint format in, sidecar and merged GGUF files out."""
