"""Records, problems, checkers and commands as text, before any tokenizer, and what answers to problems say."""
