"""Speed of drawing answers with a Hugging Face model: python3 benchmarks/gpu/drawing.py MODEL PROBLEMS.jsonl

First the decoder, the kernels and the draws are checked on the device against what they stand for; a check that fails
ends the run. Then answers are drawn with a fixed temperature and top-p and with fresh heads, and the kernels of a
steady step are listed. MODEL is a folder or a GGUF file. What is measured is written to RESULT, as JSON.
"""

import argparse
import json
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from autodeco import Heads
from autodeco.data.problems import read_problems
from autodeco.hugging_face import drawing as plain
from autodeco.hugging_face.decoder import Decoder
from autodeco.hugging_face.model import HuggingFaceModel
from autodeco.rewards.hugging_face import HuggingFacePolicy

PROFILED_STEPS = 50


def main() -> None:
    """Check, measure, write."""
    options = arguments()
    model = HuggingFaceModel(options.model, options.dtype)
    policy = HuggingFacePolicy(model, options.max_tokens, options.rows, "cuda", options.dtype)
    problems = read_problems(options.problems)
    prompts = [policy.prompt_ids(problems[i % len(problems)]["prompt"]) for i in range(options.problems_drawn)]
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": options.rows}
    result |= {"max_tokens": options.max_tokens, "samples": options.samples, "prompts": len(prompts)}
    print(json.dumps(result))

    result["checks"] = {"decoder": check_decoder(model, prompts)}
    logits = real_logits(policy, prompts)
    result["checks"]["kernels"] = [check_kernels(logits), check_kernels(random_logits(logits))]
    result["checks"]["draws"] = check_draws(logits)
    print(json.dumps(result["checks"]))
    del logits

    heads = Heads(model.identity.hidden_size).to("cuda")
    result["speed"] = {}
    for name, predictor in (("fixed", fixed), ("heads", heads)):
        # so that kernels are compiled and steps recorded
        policy.sample(prompts[: options.rows // options.samples], options.samples, predictor, seed=0)
        result["speed"][name] = speed(policy, prompts, options.samples, predictor)
        print(name, json.dumps(result["speed"][name]), flush=True)
    del policy
    torch.cuda.empty_cache()
    result["kernels"] = kernels(model, prompts[: options.rows // options.samples], options, heads)
    options.result.write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--rows", type=int, default=1536)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--problems", type=int, default=512, dest="problems_drawn")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--result", type=Path, default=Path("drawing.json"))
    return parser.parse_args()


def fixed(hidden: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Temperature 0.6, top-p 0.95."""
    return logits.new_full((len(logits),), 0.6), logits.new_full((len(logits),), 0.95)


@torch.no_grad()
def check_decoder(model: HuggingFaceModel, prompts: list[list[int]], steps: int = 40) -> dict[str, float]:
    """Hidden states of a decode of random tokens, in rows that are refilled and moved, against whole passes."""
    generator = torch.Generator().manual_seed(0)
    prompts = sorted(prompts, key=len)[:: max(1, len(prompts) // 8)][:8]
    tokens = torch.randint(1000, 20000, (len(prompts), steps), generator=generator)
    decoder = Decoder(model, 16, max(map(len, prompts)) + 2 * steps)
    prefilled = decoder.prefill(prompts)
    owners = torch.arange(len(prompts), device="cuda")
    rows = owners * 2  # those between stay empty
    decoder.admit(rows, prefilled, owners.flip(0))
    running = torch.ones(16, dtype=torch.bool, device="cuda")
    for step in range(5):  # left behind by sequences that have ended
        decoder.step(torch.full((16,), 500 + step, device="cuda"), running)
    decoder.release(rows)
    decoder.admit(rows, prefilled, owners)
    states = [decoder.hidden[rows].clone()]
    running = torch.zeros(16, dtype=torch.bool, device="cuda")
    running[rows] = True
    for step in range(steps - 1):
        if step == steps // 2:  # to the lower half
            moved = rows >= 8
            targets = torch.arange(1, 16, 2, device="cuda")[: int(moved.sum())]
            decoder.move(rows[moved], targets)
            rows = torch.where(moved, torch.cumsum(moved, 0) * 2 - 1, rows)
            running = torch.ones(8, dtype=torch.bool, device="cuda")
        padded = torch.zeros(len(running), dtype=torch.long, device="cuda")
        padded[rows] = tokens[:, step].cuda()
        decoder.step(padded, running)
        states.append(decoder.hidden[rows].clone())
    states = torch.stack(states, 1).float()
    errors, noise = [], []
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([[*prompt, *tokens[i, :-1].tolist()]], device="cuda")
        model.network(input_ids=ids, use_cache=False)
        whole = model.hidden[0, len(prompt) - 1 :].float()
        model.network(input_ids=ids.repeat(3, 1), use_cache=False)  # what another size of batch changes
        other = model.hidden[0, len(prompt) - 1 :].float()
        errors.append((states[i] - whole).norm(dim=-1) / whole.norm(dim=-1))
        noise.append((other - whole).norm(dim=-1) / whole.norm(dim=-1))
    errors, noise = torch.cat(errors), torch.cat(noise)
    found = {"median": float(errors.median()), "largest": float(errors.max()), "batching": float(noise.median())}
    assert found["median"] < 0.05 + 3 * found["batching"], found  # near 1 if rows see what is not theirs
    assert decoder._own_attention is False, "the attention kernel was not used"
    return found


@torch.no_grad()
def real_logits(policy: HuggingFacePolicy, prompts: list[list[int]]) -> torch.Tensor:
    """The logits [512, V] of some states of answers; and those of the wide product against those in float32."""
    answers = policy.sample(prompts[:64], 2, fixed, seed=1)
    rows = np.concatenate([answer.states for group in answers for answer in group])
    hidden = policy.states(np.random.default_rng(0).choice(rows, 512, replace=False))
    logits = policy.logits(hidden)
    exact = hidden.double() @ policy._matrix.double().t()
    error = float((logits - exact).abs().max() / exact.abs().max())
    assert error < 1e-5, error
    return logits


def random_logits(like: torch.Tensor) -> torch.Tensor:
    """Rows between flat and peaked, a quarter of them with ties."""
    generator = torch.Generator(like.device).manual_seed(0)
    logits = torch.randn(like.shape, device=like.device, generator=generator)
    logits *= torch.rand(len(like), 1, device=like.device, generator=generator) * 6
    logits[::4] = logits[::4].round()
    return logits


@torch.no_grad()
def check_kernels(logits: torch.Tensor) -> dict[str, float]:
    """Statistics and draws of the kernels against those of plain torch."""
    generator = torch.Generator().manual_seed(0)
    n = len(logits)
    temperature = torch.rand(n, generator=generator) * 2
    temperature[:8] = 0
    top_p = torch.rand(n, generator=generator)
    top_p[8:40], top_p[40:48], top_p[48:56] = 1, 0, 1e-6
    counters = torch.randint(0, 2**31 - 1, (n, 3), generator=generator, dtype=torch.int32)
    temperature, top_p, counters = temperature.cuda(), top_p.cuda(), counters.cuda()
    ours = plain.statistics(logits, temperature)
    tokens = plain.draw(logits, ours.largest, temperature, top_p, 2**40 + 7, counters)
    kernels, plain._kernels = plain._kernels, lambda logits: None
    try:
        theirs = plain.statistics(logits, temperature)
        expected = plain.draw(logits, theirs.largest, temperature, top_p, 2**40 + 7, counters)
    finally:
        plain._kernels = kernels
    found = {"same_tokens": float((tokens == expected).float().mean())}
    for name in ("features", "top_probability", "entropy", "largest"):
        a, b = getattr(ours, name), getattr(theirs, name)
        found[name] = float(((a - b).abs() / b.abs().clamp(min=1e-3)).max())
        assert found[name] < 1e-3, found
    assert found["same_tokens"] > 0.99, found
    return found


@torch.no_grad()
def check_draws(logits: torch.Tensor, n: int = 20_000) -> list[float]:
    """Chi-square of draws against the sorted nucleus, as deviations from what is expected."""
    found = []
    for row, temperature, top_p in ((0, 1.0, 0.95), (1, 0.7, 0.5), (2, 1.5, 1.0), (3, 1.2, 0.05), (4, 1.9, 0.9)):
        z = logits[row].double()
        z = logits[row] if len(torch.unique(z.topk(50).values)) > 10 else torch.randn_like(logits[row]) * 2
        p, order = torch.softmax(z.double() / temperature, -1).sort(descending=True, stable=True)
        inside = p.cumsum(-1) - p < top_p
        expected = torch.zeros_like(p).scatter_(0, order[inside], p[inside] / p[inside].sum()) * n
        counts = torch.zeros_like(p)
        for start in range(0, n, 1000):
            counters = torch.zeros(1000, 3, dtype=torch.int32, device="cuda")
            counters[:, 1] = torch.arange(start, start + 1000, device="cuda")
            rows = z.expand(1000, -1).contiguous()
            settings = torch.full((1000,), temperature, device="cuda"), torch.full((1000,), top_p, device="cuda")
            tokens = plain.draw(rows, rows.amax(-1), *settings, 5 + row, counters)
            counts += torch.bincount(tokens, minlength=len(counts))
        assert counts[expected == 0].sum() <= 2, "tokens outside the nucleus"  # by rounding, at its edge
        frequent = expected >= 5
        observed = torch.cat([counts[frequent], counts[~frequent].sum()[None]])
        wanted = torch.cat([expected[frequent], expected[~frequent].sum()[None]])
        observed, wanted = observed[wanted > 0], wanted[wanted > 0]
        square, freedom = float(((observed - wanted) ** 2 / wanted).sum()), max(1, len(wanted) - 1)
        found.append(round((square - freedom) / (2 * freedom) ** 0.5, 2))
    assert max(found) < 5, found
    return found


def speed(policy: HuggingFacePolicy, prompts: list[list[int]], samples: int, predictor) -> dict[str, float]:
    """Real tokens a second, and how busy the GPU was."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    with Watch() as watch:
        start = time.perf_counter()
        answers = policy.sample(prompts, samples, predictor, seed=1)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    lengths = [len(answer.tokens) for group in answers for answer in group]
    finished = [answer.finished for group in answers for answer in group]
    return {
        "tokens_per_second": round(sum(lengths) / seconds),
        "seconds": round(seconds, 2),
        "tokens": sum(lengths),
        "mean_tokens": round(float(np.mean(lengths)), 1),
        "finished": round(float(np.mean(finished)), 3),
        "gpu_utilisation": watch.mean(),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }


class Watch:
    """The GPU's utilisation in percent, as nvidia-smi gives it twice a second."""

    def __enter__(self) -> "Watch":
        self._values, self._done = [], threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._done.set()
        self._thread.join()

    def mean(self) -> float:
        """Return the mean, -1 if there is no nvidia-smi."""
        return round(float(np.mean(self._values)), 1) if self._values else -1

    def _run(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
        while not self._done.wait(0.5):
            try:
                said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
                self._values.append(float(said.split()[0]))
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                return


def kernels(model: HuggingFaceModel, prompts: list[list[int]], options: argparse.Namespace, heads) -> list[dict]:
    """The 15 kernels that take most of steps in which every row is filled, in milliseconds a step."""
    policy = HuggingFacePolicy(model, PROFILED_STEPS, options.rows, "cuda", options.dtype)
    policy._ends = torch.tensor([-1], device="cuda")  # no answer ends
    policy.sample(prompts, options.samples, heads, seed=0)
    start = time.perf_counter()
    policy.sample(prompts, options.samples, heads, seed=0)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        policy.sample(prompts, options.samples, heads, seed=0)
        torch.cuda.synchronize()
    events = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events) / 1000
    print(f"{PROFILED_STEPS} steps of {options.rows} rows: {1000 * seconds:.0f} ms, of which kernels {total:.0f} ms")
    rows = [{"kernel": "wall", "ms_a_step": round(1000 * seconds / PROFILED_STEPS, 3)}]
    for event in events[:15]:
        milliseconds = round(event.self_device_time_total / 1000 / PROFILED_STEPS, 3)
        rows.append({"kernel": event.key[:100], "ms_a_step": milliseconds, "calls": event.count})
        print(f"{milliseconds:8.3f} ms a step {event.count:7d} calls  {event.key[:100]}")
    return rows


if __name__ == "__main__":
    main()
