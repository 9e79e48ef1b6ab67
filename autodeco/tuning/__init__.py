"""From a model and problems to heads and a verdict: which stages there are, how large, and on what problems."""
