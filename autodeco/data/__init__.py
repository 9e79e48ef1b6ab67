"""What models are asked and judged by, before any tokenizer."""
