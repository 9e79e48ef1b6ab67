"""What is asked of SmolLM2 by tests of many sequences."""

from autodeco.batch import Sampling

PROMPT = "Once upon a time, in a small village by the sea, there lived"
QUESTIONS = [[{"role": "user", "content": f"What is {i} + {i + 3}?"}] for i in range(5)]
GREEDY = Sampling(temperature=0.0, heads="none")


def in_order(answers):
    return sorted(answers, key=lambda a: (a.prompt, a.sample))
