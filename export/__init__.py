"""The GGUF side: heads in every checkpoint format in, sidecar and merged GGUF files out."""
