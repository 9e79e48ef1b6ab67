"""Check models, one after the other: python check_architectures.py MODEL.gguf... prints a line of JSON for each.

A line holds, by way of running the model, how far the heads' temperature and top-p are from those predicted from the
hidden states on the host. "refused" is the line that refuses the model; "failed" is where and how it went wrong.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import llama_cpp
import numpy as np

import autodeco
from autodeco import native
from autodeco.base.states import StateReader, open_stateful
from autodeco.batch import Sampling, generate, requests
from autodeco.batch.shared import answer
from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.split import split
from autodeco.export.writer import write_embedded, write_merged
from autodeco.traces import CollectSettings, collect
from builders.random_heads import write_random_heads

# of different lengths; the last one begins as the first
PROMPTS = [[3, 14, 15, 9, 2, 65, 35, 89], [27, 18, 28], [3, 14, 15, 9, 79]]
TOKENS = 16
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


class Model:
    """A model with random heads, and what predicts from its states on the host."""

    def __init__(self, path: Path, folder: Path):
        self.path, self.folder = path, folder
        self.heads = write_random_heads(folder / "heads.gguf", path)
        self.reader = open_stateful(path, n_ctx=256, n_threads=1, n_threads_batch=1)
        self.states = StateReader(self.reader)
        self.loaded = native.load_heads(self.heads)

    def distance(self, prompt: list[int], decoding) -> float:
        """The largest distance of the values of ``decoding`` from those of the states behind the same tokens."""
        ((_, hidden, logits),) = self.states.read(prompt, decoding.token.tolist())
        expected = self.loaded.predict(hidden, logits)
        return float(np.abs(np.stack([decoding.temperature, decoding.top_p]) - expected).max())

    def single(self, processor=None, whole: Path | None = None, **options):
        """The values of one text, by the model beside its heads, or by a file that holds the ``whole``."""
        files = (str(self.path), self.heads) if whole is None else (str(whole),)
        llm = autodeco.Llama(*files, **OPTIONS, **options)
        llm.set_seed(7)
        for count, _ in enumerate(llm.generate(PROMPTS[0], logits_processor=processor), 1):
            if count == TOKENS:
                break
        decoding = llm.decoding
        llm.close()
        return decoding


def in_graph(model: Model) -> float:
    return model.distance(PROMPTS[0], model.single())


def on_host(model: Model) -> float:
    unchanged = llama_cpp.LogitsProcessorList([lambda _, logits: logits])
    return model.distance(PROMPTS[0], model.single(unchanged))


def logits_all(model: Model) -> float:
    return model.distance(PROMPTS[0], model.single(logits_all=True))


def batch(model: Model) -> float:
    llm = autodeco.Llama(str(model.path), model.heads, **OPTIONS)
    answers = list(generate(llm, PROMPTS, 1, max_tokens=TOKENS, seed=5, slots=2))
    answers += generate(llm, PROMPTS, 2, max_tokens=TOKENS, seed=5, slots=4)
    llm.close()
    assert len(answers) == 3 * len(PROMPTS)
    return max(model.distance(PROMPTS[answer.prompt], answer.decoding) for answer in answers)


def evaluation(model: Model) -> float:
    llm = autodeco.Llama(str(model.path), model.heads, **OPTIONS)
    wanted = requests(llm, PROMPTS, 2, [Sampling(), Sampling(0.0), Sampling()], TOKENS, seed=5)
    answers = list(answer(llm, wanted, model.loaded, 4))
    llm.close()
    assert len(answers) == 2 * len(PROMPTS)
    return max(model.distance(PROMPTS[answer.prompt], answer.decoding) for answer in answers)


def collecting(model: Model) -> float:
    """How far logits rebuilt from the kept states are from llama.cpp's, relative."""
    texts = [model.reader.detokenize(prompt).decode() for prompt in PROMPTS]
    data = model.folder / "data.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": text, "completion": texts[0]}) for text in texts))
    settings = CollectSettings(context=256)
    return collect(model.path, data, model.folder / "traces", settings, threads=1, progress=False).logits_error


def layouts(model: Model) -> float:
    """As in the graph, from files that hold the model and its heads; the model comes back out of them as it was."""
    base = open_layout(model.path)
    tensors = head_tensors(read_heads(model.heads, base.embedding_length), "f32")
    distances = []
    for write in (write_merged, write_embedded):
        whole = model.folder / "whole.gguf"
        write(whole, tensors, base)
        distances.append(model.distance(PROMPTS[0], model.single(whole=whole)))
        again, _ = split(whole, model.folder / "again")
        assert again.read_bytes() == model.path.read_bytes(), f"{write.__name__} changed the model"
    return max(distances)


WAYS = {
    "graph": in_graph,
    "host": on_host,
    "logits_all": logits_all,
    "batch": batch,
    "evaluation": evaluation,
    "collect": collecting,
    "layouts": layouts,
}


def check(path: Path) -> dict:
    found: dict = {"model": path.stem, "distances": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = Model(path, Path(folder))
        except InputError as error:
            return found | {"refused": str(error)}
        for name, way in WAYS.items():
            print(json.dumps({"model": path.stem, "way": name}), flush=True)  # the last line of a process that dies
            try:
                found["distances"][name] = way(model)
            except Exception as error:
                found.setdefault("failed", {})[name] = f"{type(error).__name__}: {error}"
        model.reader.close()
    return found


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps(check(Path(path))), flush=True)
