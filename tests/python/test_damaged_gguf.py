"""Both readers of heads, Python's and the runtime's, give the same verdict of every file, and read the same from it.

Twenty seconds of damages at random here; AUTODECO_FUZZ_SECONDS=600 for longer.
"""

import os
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from autodeco import native
from autodeco.errors import InputError
from autodeco.export.checkpoint import HeadWeights, read_heads
from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import check_heads
from autodeco.export.layout import Layout, open_layout
from autodeco.export.writer import write_embedded, write_merged, write_sidecar
from builders import damaged_gguf as damaged
from builders import gguf_files as files
from builders.damaged_gguf import EITHER, READ
from builders.gguf_parts import Parts, embedded_with, merged_with, parts_of

HIDDEN, VOCAB = 32, 50
SECONDS = float(os.environ.get("AUTODECO_FUZZ_SECONDS", "20"))
ROW = np.linspace(-1, 1, HIDDEN, dtype=np.float32)[None]
LOGITS = np.zeros((1, VOCAB), np.float32)


@dataclass
class World:
    """Good files of every kind, taken apart, and the model that the heads in them are for."""

    folder: Path
    base: Layout
    heads: native.Heads
    kinds: dict[str, Parts]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "base.gguf").write_bytes(files.model(hidden=HIDDEN, vocab=VOCAB))
    (folder / "tailed.gguf").write_bytes(files.model(hidden=HIDDEN, vocab=VOCAB, tail=b"tail" * 9))
    base, tailed = open_layout(folder / "base.gguf"), open_layout(folder / "tailed.gguf")
    kinds = {}
    for name, weight_type, heads, extra in (
        ("both", "f16", (True, True), 5),
        ("temperature", "q8_0", (True, False), 5),
        ("top-p", "f32", (False, True), 1),
        ("control", "bf16", (True, True), 5),
    ):
        ends = ControlEnds(0.2, 1.25, 0.5, 0.99, 0.05) if name == "control" else None
        arrays = files.head_arrays(HIDDEN, extra, *heads, control=ends is not None)
        tensors = head_tensors(check_heads(arrays, name, HIDDEN, control=ends), weight_type)
        write_sidecar(folder / f"{name}.gguf", tensors, base)
        kinds[name] = parts_of(folder / f"{name}.gguf")
        write_merged(folder / "merged.gguf", tensors, tailed if name == "both" else base)
        kinds[f"{name}, merged"] = parts_of(folder / "merged.gguf")
        write_embedded(folder / "embedded.gguf", tensors, base, {"general.name": "Mine", "general.author": "Me"})
        kinds[f"{name}, embedded"] = parts_of(folder / "embedded.gguf")
    kinds["plain"] = parts_of(folder / "base.gguf")
    return World(folder, base, native.load_heads(folder / "both.gguf"), kinds)


def by_python(path: Path, world: World) -> tuple:
    """What Python's reader says of the heads and of the model in a file; None where it refuses them."""
    heads = model = None
    try:
        layout = open_layout(path)
        if layout.has_base:
            model = layout.model_fingerprint == world.base.model_fingerprint
        found = read_heads(path)
    except InputError as error:
        refused_in_one_line(error)
    else:
        sizes = layout.embedding_length, layout.vocab_size
        which = found.has_temperature, found.has_top_p, found.prob_stats
        assert which == (layout.has_temperature, layout.has_top_p, layout.prob_stats)
        for_base = layout.named_fingerprint == world.base.model_fingerprint
        predicted = (_temperature(found.tensors), _level(found)) if sizes == (HIDDEN, VOCAB) else None
        heads = (*sizes, *which, found.has_control, for_base, predicted)
    return heads, model


def refused_in_one_line(error: InputError) -> None:
    if "\n" in str(error):
        raise AssertionError(f"more than one line: {error}") from error


def _temperature(weights: dict) -> float:
    return round(2 * _sigmoid(weights, "temp_head"), 2) if "temp_head.mlp.0.weight" in weights else 1.0


def _level(heads: HeadWeights) -> float:
    if heads.control is None:
        return 0.0
    raw, dead = 2 * _sigmoid(heads.tensors, "control_head") - 1, heads.control.dead_zone
    return round(float(np.sign(raw)) * max(abs(raw) - dead, 0) / (1 - dead), 2)


def _sigmoid(weights: dict, head: str) -> float:
    first, bias, second, last = (weights[f"{head}.mlp.{part}"] for part in ("0.weight", "0.bias", "2.weight", "2.bias"))
    value = second @ np.maximum(first @ ROW[0] + bias, 0) + last
    return float(1 / (1 + np.exp(-value[0])))


def by_the_runtime(path: Path, world: World) -> tuple:
    """The same of the compiled reader."""
    heads = None
    try:
        found = native.load_heads(path)
    except InputError as error:
        refused_in_one_line(error)
    else:
        sizes = found.embedding_length, found.vocab_size
        predicted = None
        if sizes == (HIDDEN, VOCAB):
            values = found.predict(ROW, LOGITS)[0][0], found.levels(ROW)[0]
            predicted = tuple(round(float(value), 2) for value in values)
        which = found.has_temperature, found.has_top_p, found.prob_stats, found.has_control
        heads = (*sizes, *which, _made_for(found, world.folder / "base.gguf"), predicted)
    return heads, _made_for(world.heads, path)


def _made_for(heads: native.Heads, path: Path) -> bool | None:
    try:
        heads.check_made_for(os.fsencode(path))
    except ValueError as error:
        return False if "is another file" in str(error) else None
    return True


def agreed(data: bytes, world: World, told: str) -> tuple:
    """The verdict of both readers on a file with ``data``."""
    path = world.folder / "file.gguf"
    path.write_bytes(data)
    python, runtime = by_python(path, world), by_the_runtime(path, world)
    assert python == runtime, told
    return python


def is_read(kind: str, verdict: tuple) -> bool:
    """Whether all that a file of this kind should hold was read."""
    heads, model = verdict
    return (heads is not None or kind == "plain") and (model is not None or kind in ("both", "temperature", "control"))


@pytest.mark.parametrize(
    "kind",
    ["both", "temperature", "control", "both, merged", "control, merged", "top-p, merged", "both, embedded", "plain"],
)
def test_the_readers_agree_on_every_single_damage(world, kind):
    good = world.kinds[kind]
    counted = {True: 0, False: 0}
    cases = [(told, parts.encoded(), expected) for told, parts, expected in damaged.damages(good)]
    for told, data, expected in (*cases, *damaged.cuts(good.encoded())):
        read = is_read(kind, agreed(data, world, told))
        counted[read] += 1
        if kind not in ("plain", "both, embedded"):
            assert expected in (EITHER, READ if read else damaged.REFUSED), told
    assert min(counted.values()) > 100, counted


def test_the_readers_agree_on_damage_to_a_model_inside_a_merged_file(world):
    outer, inner = world.kinds["temperature, merged"], world.kinds["plain"]
    counted = {True: 0, False: 0}
    assert agreed(merged_with(outer, inner).encoded(), world, "none")[1] is True
    for told, parts, _ in damaged.damages(inner):
        whole = merged_with(outer, parts)
        counted[is_read("merged", agreed(whole.encoded(), world, told))] += 1
    for inside in ("both", "temperature, merged"):
        verdict = agreed(merged_with(outer, world.kinds[inside]).encoded(), world, f"{inside} inside")
        assert verdict == (None, None)
    assert min(counted.values()) > 50, counted


def test_the_readers_agree_on_damage_to_heads_inside_an_embedded_file(world):
    outer, inner = world.kinds["both, embedded"], world.kinds["temperature"]
    counted = {True: 0, False: 0}
    assert None not in agreed(embedded_with(outer, inner.encoded()).encoded(), world, "none")
    for told, data in (
        *((told, parts.encoded()) for told, parts, _ in damaged.damages(inner)),
        *((told, data) for told, data, _ in damaged.cuts(inner.encoded())),
    ):
        counted[is_read("embedded", agreed(embedded_with(outer, data).encoded(), world, told))] += 1
    for inside in ("plain", "both, merged", "both, embedded"):
        heads, _ = agreed(embedded_with(outer, world.kinds[inside].encoded()).encoded(), world, f"{inside} inside")
        assert heads is None
    verdict = agreed(merged_with(world.kinds["temperature, merged"], outer).encoded(), world, "embedded, in merged")
    assert verdict == (None, None)
    assert min(counted.values()) > 50, counted


def test_a_name_of_any_length_is_exported_as_it_can_be_read(world):
    """A name of 70 kB was once written, and then called damaged by the runtime."""
    model = world.folder / "named.gguf"
    tensors = head_tensors(read_heads(world.folder / "both.gguf"), "f16")
    for name in ("n" * 70_000, "\u20ac" * 40_000, "a\nb\x1b[31m"):
        model.write_bytes(files.model(hidden=HIDDEN, vocab=VOCAB, name=name))
        for write in (write_sidecar, write_merged):
            write(world.folder / "out.gguf", tensors, open_layout(model))
            heads, _ = agreed((world.folder / "out.gguf").read_bytes(), world, name[:9])
            assert heads[:6] == (HIDDEN, VOCAB, True, True, True, False)
            heads = native.load_heads(world.folder / "out.gguf")
            with pytest.raises(ValueError, match="is another file") as caught:
                heads.check_made_for(os.fsencode(world.folder / "base.gguf"))
            assert len(str(caught.value)) < 400


@pytest.mark.slow
def test_the_readers_agree_on_several_damages_at_once(world):
    end, count, read = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        chance = random.Random(count)
        kind = chance.choice(sorted(world.kinds))
        parts = damaged.several(world.kinds[kind], chance)
        if kind in ("both", "temperature", "control") and chance.random() < 0.3:
            kind = f"{kind}, embedded"
            parts = embedded_with(world.kinds[kind], parts.encoded())
        elif chance.random() < 0.3:
            kind = "temperature, merged"
            parts = merged_with(world.kinds[kind], replace(parts, alignment=32))
        read += is_read(kind, agreed(parts.encoded(), world, f"{kind}, seed {count}"))
        count += 1
    print(f"{count} files, {read} of them read")
    assert 0 < read < count
