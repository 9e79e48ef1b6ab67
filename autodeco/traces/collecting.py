"""Collecting traces: run llama.cpp over completions and keep the hidden state that predicts each of their tokens."""

import os
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import llama_cpp
import numpy as np
from tqdm import tqdm

from autodeco.base.identity import ModelIdentity
from autodeco.base.output_matrix import OutputMatrix, read_output_matrix
from autodeco.base.states import LogitsCheck, StatefulModel, StateReader, check_float16, open_stateful, refuse_if_wrong
from autodeco.base.tokenizer import Tokenizer
from autodeco.data.control import NO_COMMAND, Command, Control, commanded, read_commands
from autodeco.data.records import PromptNumbers, Record, held_out_records, read_records
from autodeco.errors import InputError
from autodeco.export.layout import Layout, open_layout
from autodeco.runs.locks import locked_folder
from autodeco.runs.provenance import file_hash, provenance
from autodeco.settings.limits import PROMPT_BATCH
from autodeco.settings.machine import Processors
from autodeco.settings.program import bar
from autodeco.traces.format import MANIFEST, Manifest, Shard, read_manifest, write_manifest, write_shard
from autodeco.traces.settings import CollectSettings


def collect(
    model_path: str | os.PathLike,
    data_path: str | os.PathLike,
    output_dir: str | os.PathLike,
    settings: CollectSettings | None = None,
    threads: int | None = None,
    progress: bool = True,
    commands_path: str | os.PathLike | None = None,
    gpu_layers: int = 0,
) -> Manifest:
    """Run the GGUF model over the records of ``data_path``, write traces into ``output_dir``, return their manifest.

    ``commands_path``: the command set of control, if it is not our own. Continues an interrupted run of the same model,
    data and settings, and refuses another. Raises InputError for bad input, and when logits rebuilt from the kept
    states differ from llama.cpp's own by more than 5%.
    """
    settings, output_dir = settings or CollectSettings(), Path(output_dir)
    machine = Processors(threads, gpu_layers)
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"{output_dir}: is a file; give a folder for the traces")
    if commands_path is not None and not settings.control:
        raise InputError(f"{commands_path}: commands are given to prompts with --control only")
    layout = open_layout(model_path)
    matrix = read_output_matrix(layout)
    commands = read_commands(commands_path) if settings.control else []
    prompts = _prompt_numbers(data_path, commands)
    new = _manifest(layout, Path(data_path), settings, matrix)
    if settings.control:
        held_out = held_out_records(range(len(prompts)), prompts, settings.validation_share, settings.seed)
        new.control = Control(commands, sorted(held_out), settings.seed)
    if (manifest := _continued(output_dir, new)).complete:
        return manifest
    llm = _open(layout, matrix, settings.context, machine)
    with locked_folder(output_dir):
        manifest = _continued(output_dir, new)  # another process may have written meanwhile
        with bar(len(prompts), manifest.next_record, "record", "collect", progress) as shown:
            _run(llm, matrix, data_path, prompts, output_dir, manifest, shown)
        if not manifest.tokens:
            raise InputError(
                f"{data_path}: every prompt fills the context of {settings.context} tokens or fewer that the model "
                "has; raise --context or shorten the prompts"
            )
        manifest.complete = True
        write_manifest(output_dir, manifest)
    return manifest


def _open(layout: Layout, matrix: OutputMatrix, context: int, machine: Processors) -> StatefulModel:
    llm = open_stateful(layout, n_ctx=context, n_batch=PROMPT_BATCH, **machine.opening)
    if (llm.n_embd(), llm.n_vocab()) != (matrix.hidden_size, matrix.vocab_size):
        raise InputError(
            f"{layout.path}: its output matrix is {matrix.vocab_size} x {matrix.hidden_size}, the model works with "
            f"{llm.n_vocab()} x {llm.n_embd()}; heads cannot be trained on this architecture"
        )
    return llm


def _prompt_numbers(data_path, commands: list[Command]) -> list[int]:
    """Return the number of each record's prompt; bad records show here, before the work, not hours into it."""
    found: list[int] = []
    number = PromptNumbers()
    for record in read_records(data_path):
        found.append(number(len(found), record))
        if commands:
            try:
                commanded(record, commands[0])
            except InputError as error:
                raise InputError(f"{data_path}, line {record.line}: {error}") from None
    return found


def _run(
    llm, matrix: OutputMatrix, data_path, prompts: list[int], output_dir: Path, manifest: Manifest, shown: tqdm
) -> None:
    settings = CollectSettings(**manifest.settings)
    tokenizer = Tokenizer(llm, settings.append_end)
    check = LogitsCheck(settings.seed) if manifest.logits_error is None else None
    context = min(settings.context, llama_cpp.llama_model_n_ctx_train(llm.model))
    states = StateReader(llm)
    pending = _Pending(manifest.next_record)
    index = manifest.next_record - 1
    for index, record in enumerate(islice(read_records(data_path), manifest.next_record, None), manifest.next_record):
        where = f"{data_path}, line {record.line}"
        try:
            answers = _answers(index, record, manifest.control, tokenizer)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        longest = max(len(prompt) for _, prompt, _ in answers)
        if longest >= context:
            pending.skipped += 1
        else:
            first = not pending.hidden
            pending.truncated += any(longest + len(completion) > context for _, _, completion in answers)
            for command, prompt, completion in answers:
                # The last token of the completion is predicted by a state, but has none that is needed.
                completion = completion[: context - longest]
                for position, hidden, logits in states.read(prompt, completion):
                    check_float16(hidden, where)
                    pending.add(hidden, completion, index, prompts[index], position, len(prompt), command)
                    if check:
                        check.offer(hidden, logits)
            if check and first and pending.hidden:
                refuse_if_wrong(check.relative_error(matrix), matrix)
        shown.update()
        shown.set_postfix(tokens=manifest.tokens + pending.tokens, refresh=False)
        if pending.tokens >= settings.shard_tokens:
            check = _flush(pending, index + 1, check, matrix, output_dir, manifest)
            pending = _Pending(index + 1)
            states.forget()  # an interrupted run starts here: it gives the same shards as one that was not
    _flush(pending, index + 1, check, matrix, output_dir, manifest)


def _answers(index: int, record: Record, control: Control | None, tokenizer: Tokenizer):
    """Return (command, prompt ids, completion ids) of the record, behind the commands that it is given."""
    variants = control.variants(index, record) if control else [(NO_COMMAND, record)]
    return [(command, *tokenizer(variant)) for command, variant in variants]


class _Pending:
    """The shard in progress."""

    def __init__(self, first_record: int):
        self.first_record = first_record
        self.hidden: list[np.ndarray] = []
        self.label: list[int] = []
        self.record: list[int] = []
        self.prompt: list[int] = []
        self.position: list[int] = []
        self.command: list[int] = []
        self.skipped = 0
        self.truncated = 0

    @property
    def tokens(self) -> int:
        return len(self.label)

    def add(
        self,
        hidden: np.ndarray,
        completion: list[int],
        index: int,
        prompt: int,
        start: int,
        prompt_length: int,
        command: int,
    ) -> None:
        """Add ``hidden`` [n, H]: the states that predict ``completion[start : start + n]`` of record ``index``, whose
        prompt has the number ``prompt``."""
        self.hidden.append(hidden.astype(np.float16))
        self.label += completion[start : start + len(hidden)]
        self.record += [index] * len(hidden)
        self.prompt += [prompt] * len(hidden)
        self.position += range(prompt_length - 1 + start, prompt_length - 1 + start + len(hidden))
        self.command += [command] * len(hidden)


def _flush(pending: _Pending, next_record: int, check, matrix: OutputMatrix, output_dir: Path, manifest: Manifest):
    """Write the shard, then the manifest that names it; return the check while it is still to be done."""
    if pending.tokens:
        if check:
            manifest.logits_error = check.relative_error(matrix)
            manifest.logits_checked = len(check.kept)
            refuse_if_wrong(manifest.logits_error, matrix)
            check = None
        shard = Shard(
            f"shard-{len(manifest.shards):05d}.safetensors", pending.tokens, pending.first_record, next_record
        )
        columns = {name: getattr(pending, name) for name in manifest.columns}
        write_shard(output_dir / shard.file, np.concatenate(pending.hidden), **columns)
        manifest.shards.append(shard)
    manifest.next_record = next_record
    manifest.skipped += pending.skipped
    manifest.truncated += pending.truncated
    write_manifest(output_dir, manifest)
    return check


def _manifest(layout: Layout, data_path: Path, settings: CollectSettings, matrix: OutputMatrix) -> Manifest:
    model = ModelIdentity(
        path=str(Path(layout.path).resolve()),
        fingerprint=layout.model_fingerprint,
        architecture=matrix.architecture,
        name=matrix.name,
        hidden_size=matrix.hidden_size,
        vocab_size=matrix.vocab_size,
    )
    data = {"file": data_path.name, "sha256": file_hash(data_path)}
    return Manifest(model, data, asdict(settings), prompts=True, made=provenance())


def _continued(output_dir: Path, wanted: Manifest) -> Manifest:
    """Return the manifest in ``output_dir`` if it was made with the same model, data and settings; ``wanted`` if there
    is none."""
    if not (output_dir / MANIFEST).exists():
        return wanted
    found = read_manifest(output_dir)
    differences = []
    if found.model.fingerprint != wanted.model.fingerprint:
        differences.append(f"model {found.model.name}")
    if found.data["sha256"] != wanted.data["sha256"]:
        differences.append(f"data {found.data['file']}")
    settings = asdict(CollectSettings()) | found.settings  # an older version knew fewer
    differences += [
        f"{name.replace('_', '-')} {settings[name]}"
        for name, value in wanted.settings.items()
        if settings[name] != value
    ]
    if not differences and found.control != wanted.control:
        differences.append("set of commands")
    if differences:
        raise InputError(
            f"{output_dir}: holds traces made with another {', another '.join(differences)}; "
            "use the same again to continue, or another folder"
        )
    return found
