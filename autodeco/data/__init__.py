"""Records, problems, checkers and commands as text, before any tokenizer."""
