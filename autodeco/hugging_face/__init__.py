"""A frozen transformers model: its tokens, hidden states and batched decoding."""
