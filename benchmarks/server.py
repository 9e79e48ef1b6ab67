"""Throughput of autodeco-server with heads over stock llama-server at temperature 0.8 and top-p 0.95.

    python benchmarks/server.py --stock llama-server --ours build/x86-64/autodeco-server
    python benchmarks/server.py --stock S --ours O --model M.gguf --heads H.gguf --gpu-layers 99 --slots 32 -o -

Both servers run at once, and take turns: in each round every way of sampling answers the same prompts, in an order that
changes from round to round, after a short answer of every slot that does not count. A ratio is the median of those of
the rounds. Without --model: SmolLM2-135M with the golden heads of tests/golden. With --busy it counts the time of the
processor, on one thread, which other work on the machine disturbs little. Writes benchmarks/results/server.json; -o -
prints the JSON alone. With --model and --heads it needs Python alone. Each rate goes to stderr as it is measured.
--limit ends the run in time, with the rounds that were done.
"""

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "server.json"
TOPICS = ("the sea", "a garden", "two friends", "winter", "a lost letter", "the moon", "an old clock", "a long road")
FIXED = {"temperature": 0.8, "top_p": 0.95}
# Nothing but the two, as heads have it; llama-server's default cuts to the 40 likeliest tokens before it looks further.
ALONE = FIXED | {"samplers": ["temperature", "top_p"]}
WITHOUT = {"autodeco": False}
# By name: which server, and what is sent to it.
WAYS = {
    "stock": ("stock", ALONE),
    "stock, default samplers": ("stock", FIXED),
    "stock, --backend-sampling": ("stock", ALONE | {"backend_sampling": True}),
    "ours without heads": ("ours", ALONE | WITHOUT),
    "heads in the graph": ("ours", {}),
    "heads on the host": ("ours", {"backend_sampling": False}),
}
RATIOS = (
    ("heads in the graph", "stock"),
    ("heads in the graph", "stock, default samplers"),
    ("heads in the graph", "stock, --backend-sampling"),
    ("heads in the graph", "ours without heads"),
    ("heads on the host", "stock"),
    ("ours without heads", "stock"),
)


class Server:
    """A server that runs while it is entered."""

    def __init__(self, program: Path, arguments: list, log: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._command = [str(part) for part in (program, "--port", port, *arguments)]
        self._log = log

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def __enter__(self) -> "Server":
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(self._command, stdout=file, stderr=subprocess.STDOUT)
        end = time.monotonic() + 600
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.address + "/health", timeout=5):
                return self
            time.sleep(0.2)
        self.process.kill()
        raise SystemExit(f"{self._command[0]} does not start: {self.said()}")

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)

    def ask(self, body: dict) -> dict:
        """The answer to ``body``."""
        request = urllib.request.Request(self.address + "/completion", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(server: Server, settings: dict, args: argparse.Namespace) -> None:
    """Let every slot answer once: it keeps what it samples with, for which llama.cpp measures its graphs."""
    bodies = [{"prompt": "Once upon", "n_predict": 2, "cache_prompt": False, "id_slot": i} for i in range(args.slots)]
    with ThreadPoolExecutor(args.slots) as clients:
        list(clients.map(lambda body: server.ask(body | settings), bodies))


def body_of(args: argparse.Namespace, seed: int, i: int) -> dict:
    """Request ``i`` of a round."""
    prompt = f"A long story about {TOPICS[i % len(TOPICS)]}, told {i + 2} times. Once upon a time,"
    return {"prompt": prompt, "seed": seed * 10_000 + i, "n_predict": args.tokens, "cache_prompt": False}


def values_told(server: Server, args: argparse.Namespace) -> dict[str, int]:
    """How many tokens of answers that begin while others go on have their values, and how many lack them."""
    with ThreadPoolExecutor(args.slots) as clients:
        asked = [body_of(args, args.rounds + 1, i) | {"autodeco": True} for i in range(2 * args.slots)]
        answers = list(clients.map(server.ask, asked))
    known = [value is not None for answer in answers for value in answer["autodeco"]["temperature"]]
    return {"known": sum(known), "unknown": len(known) - sum(known)}


def rate(server: Server, settings: dict, args: argparse.Namespace, seed: int, answers: int) -> tuple[float, float]:
    """Tokens per second, prompts included, of clients that get the tokens of ``answers`` each; tokens of an answer.

    An answer that ends early goes on behind a prompt of a token, so that no way of sampling has more to read or a slot
    that rests."""
    counts: list[list[int]] = [[] for _ in range(args.slots)]

    def client(number: int) -> None:
        for i in range(answers):
            body = body_of(args, seed, number + i * args.slots) | settings
            left = args.tokens
            while left > 0:
                got = max(1, server.ask(body | {"n_predict": left})["tokens_predicted"])
                counts[number].append(got)
                left -= got
                body |= {"prompt": "Then", "seed": body["seed"] + 1_000_000}

    clock = server.processor_seconds if args.busy else time.perf_counter
    start = clock()
    clients = [threading.Thread(target=client, args=(number,)) for number in range(args.slots)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    took = clock() - start
    total = args.slots * answers * args.tokens
    if sum(map(sum, counts)) < total:
        raise SystemExit(f"a request has failed: {server.said()}")
    return total / took, total / sum(map(len, counts))


def measure(servers: dict[str, Server], args: argparse.Namespace, end: float) -> dict:
    """Tokens per second by way of sampling, and the ratios; no round begins that would not be done by ``end``."""
    names = [name for name in WAYS if name in args.ways]
    found: dict[str, list[float]] = {name: [] for name in names}
    lengths: dict[str, list[float]] = {name: [] for name in names}
    longest = 0.0
    for round_ in range(args.rounds + 1):
        start = time.monotonic()
        if round_ > 1 and start + longest > end:
            print(f"no time for round {round_}", file=sys.stderr)
            break
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            server, settings = WAYS[name]
            settle(servers[server], settings, args)
            answers = args.answers if round_ > 0 else 1  # the first round warms up
            value, length = rate(servers[server], settings, args, round_, answers)
            print(f"round {round_} of {args.rounds}: {name}: {value:.1f} tokens/s", file=sys.stderr, flush=True)
            if round_ > 0:
                found[name].append(round(value, 2))
                lengths[name].append(length)
        if round_ > 0:
            longest = max(longest, time.monotonic() - start)
    ratios = {
        f"{a} / {b}": [x / y for x, y in zip(found[a], found[b], strict=True)]
        for a, b in RATIOS
        if a in found and b in found
    }
    return {
        "tokens_per_second": found,
        "tokens_of_an_answer": {name: round(statistics.mean(values), 1) for name, values in lengths.items()},
        "median": {name: round(statistics.median(values), 2) for name, values in found.items()},
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "ratio_least_and_largest": {name: [round(min(v), 3), round(max(v), 3)] for name, v in ratios.items()},
    }


@contextlib.contextmanager
def files(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """Model and heads."""
    if args.model:
        if not args.heads:
            raise SystemExit("give --heads with --model")
        yield args.model, args.heads
        return
    from autodeco.base.opening import default_model
    from autodeco.export import cli as export_cli

    with tempfile.TemporaryDirectory() as folder:
        heads = Path(folder) / "heads.gguf"
        golden = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
        with contextlib.redirect_stdout(sys.stderr):
            export_cli.main([str(golden), "--base", str(default_model()), "-o", str(heads), "--sampling", "none"])
        yield default_model(), heads


def devices(program: Path) -> list[str]:
    """The GPUs that a server finds."""
    listed = subprocess.run([program, "--list-devices"], capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in listed.partition("Available devices:")[2].splitlines() if ":" in line]


def surroundings(args: argparse.Namespace) -> dict:
    """The machine and the versions."""
    version = subprocess.run([args.ours, "--version"], capture_output=True, text=True, check=False)
    about: dict = {"llama.cpp": (version.stdout + version.stderr).strip().splitlines()[-2:]}
    if args.gpu_layers > 0:
        about["devices"] = devices(args.ours)
    try:
        from autodeco.commands.bench import machine, versions
    except ImportError:
        return about | {"machine": {"system": platform.platform(), "processor": platform.processor()}}
    return about | {"machine": machine(), "versions": versions()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", type=Path, required=True, help="llama.cpp's llama-server, built like --ours")
    parser.add_argument("--ours", type=Path, default=ROOT / "build" / "x86-64" / "autodeco-server")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--answers", type=int, default=4, help="for each slot")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds; then no round begins")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="one thread, by the processor time of the server")
    parser.add_argument("-o", "--output", default=str(RESULT))
    args = parser.parse_args()
    threads = 1 if args.busy else args.threads
    end = time.monotonic() + args.limit
    room = args.slots * (args.tokens + 128)
    if args.gpu_layers > 0:
        for program in (args.stock, args.ours):
            if not devices(program):
                raise SystemExit(f"{program} finds no GPU: leave --gpu-layers out, or build it for one")
    with files(args) as (model, heads), tempfile.TemporaryDirectory() as logs:
        shared = ["-m", model, "-np", args.slots, "-c", room, "-ngl", args.gpu_layers, "-t", threads, "-tb", threads]
        shared += ["-fit", "off", "--cache-ram", 0, "--host", "127.0.0.1", "--offline"]
        with (
            Server(args.stock, shared, Path(logs) / "stock") as stock,
            Server(args.ours, [*shared, "--autodeco", heads], Path(logs) / "ours") as ours,
        ):
            result = {
                "model": model.name,
                "settings": {
                    name: getattr(args, name) for name in ("slots", "answers", "tokens", "rounds", "gpu_layers")
                }
                | {"threads": threads},
                "clock": "processor time of the server" if args.busy else "wall",
                **measure({"stock": stock, "ours": ours}, args, end),
                "values": values_told(ours, args),
                **surroundings(args),
            }
    text = json.dumps(result, indent=2)
    if args.output == "-":
        print(text)
        return
    Path(args.output).write_text(text + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("median", "ratio")}, indent=2))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
