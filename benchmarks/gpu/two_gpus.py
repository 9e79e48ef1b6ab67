"""One model on two GPUs, in every way that they can share it, against the first GPU alone.

    python3 benchmarks/gpu/two_gpus.py MODEL HEADS -o RESULT.json [--server autodeco-server] [--program autodeco-cli]

The installed autodeco.Llama takes every way, and so does the program that is named; a server takes some. Each must give
the tokens of one GPU, and T and P to 1e-3; keep layers on the GPUs that were asked for; and draw on a GPU. Rows of
matrices are refused in one line, or multiplied by other kernels: they begin with the same token, and keep T and P to
0.1. Tensor parallelism is refused in one line. The exit code is 1 where anything else happens. `--rpc A,B` tries all of
this over two of llama.cpp's servers, on a machine without GPUs.
"""

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

PROMPT, TOKENS, ROUNDS = "The capital of France is", 64, 3
LAYER, NONE, ROW, TENSOR = "layer", "none", "row", "tensor"
NUMBERS = {NONE: 0, LAYER: 1, ROW: 2, TENSOR: 3}  # of enum llama_split_mode
ALONE = {"split_mode": NONE, "main_gpu": 0}
WAYS = {
    "by free memory": {},
    "halves": {"tensor_split": [0.5, 0.5]},
    "nine tenths and the rest": {"tensor_split": [0.9, 0.1]},
    "nothing and all": {"tensor_split": [0, 1]},
    "the second alone": {"split_mode": NONE, "main_gpu": 1},
    "rows": {"split_mode": ROW},
    "rows, the rest on the second": {"split_mode": ROW, "main_gpu": 1},
    "tensor parallelism": {"split_mode": TENSOR},
}
ON_THE_SECOND = ("nothing and all", "the second alone")
OF_A_SERVER = ("halves", "the second alone", "rows", "tensor parallelism")  # which takes longest to start
ASKED = {"greedy": {"temp": 0.0}, "drawn": {"temp": 1.0}}
SEED = 7
TELLING = {"GGML_SCHED_DEBUG": "1"}  # llama.cpp's scheduler, how it divides graphs


def flags(settings: dict) -> list[str]:
    """Return the settings of a way as arguments of the programs."""
    found = []
    for name, value in settings.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        found += [f"--{name.replace('_', '-')}", text]
    return found


def placed(log: str) -> dict:
    """Return what llama.cpp's log says: each device's megabytes of the model, and the parts of the last graph."""
    sizes = re.findall(r"(\S+) model buffer size = *([\d.]+) MiB", log)
    mib: dict[str, float] = {}
    for name, size in sizes:
        if not name.startswith("CPU") and not name.endswith("_Host") and float(size) > 0:
            mib[name] = mib.get(name, 0.0) + float(size)
    graph = log[log.rfind("## SPLIT #0:") :] if "## SPLIT #0:" in log else ""
    return {"mib": mib, "splits": re.findall(r"^## SPLIT #\d+: (\S+) #", graph, re.MULTILINE)}


def ended(done: subprocess.CompletedProcess) -> dict:
    """Return what a process that failed says of it, and in how many lines."""
    told = done.stderr.strip().splitlines()
    if done.returncode < 0:
        return {"failed": f"ended by {signal.Signals(-done.returncode).name}: {told[-1] if told else ''}", "lines": 0}
    return {"failed": told[-1] if told else f"exit code {done.returncode}", "lines": len(told)}


def run(command: list) -> subprocess.CompletedProcess:
    """Run a command with llama.cpp's scheduler telling how it divides graphs."""
    told = {"capture_output": True, "text": True, "errors": "replace", "check": False}
    return subprocess.run(list(map(str, command)), env=os.environ | TELLING, **told)


def with_python(settings: dict, args: argparse.Namespace) -> dict:
    """Return what autodeco.Llama gives, in a process of its own: answers, tokens per second, and what holds what."""
    settings = settings | ({"split_mode": NUMBERS[settings["split_mode"]]} if "split_mode" in settings else {})
    settings = {"n_gpu_layers": -1, "rpc_servers": args.rpc} | settings
    safe = ["-P"] if sys.flags.safe_path else []
    done = run([sys.executable, *safe, __file__, "python", args.model, args.heads, json.dumps(settings)])
    if done.returncode:
        return ended(done)
    found = json.loads(done.stdout.splitlines()[-1])
    return found if "failed" in found else found | placed(done.stderr)


def python(model: str, heads: str, settings: dict) -> None:
    """Print the answers of autodeco.Llama and its rates, or why it refuses."""
    from itertools import islice

    import autodeco

    try:
        llm = autodeco.Llama(model, heads, n_ctx=512, **settings)
    except ValueError as error:
        print(json.dumps({"failed": str(error), "lines": len(str(error).splitlines())}))
        return

    def answer(**asked) -> float:
        generation = llm.generate(llm.tokenize(PROMPT.encode()), **asked)
        next(generation)
        began = time.perf_counter()
        list(islice(generation, TOKENS - 1))
        seconds = time.perf_counter() - began
        generation.close()
        return (TOKENS - 1) / seconds

    found = {}
    for name, asked in ASKED.items():
        llm.set_seed(SEED)
        answer(**asked)
        picked = llm.decoding.to_dict()
        found[name] = {key: picked[key] for key in ("token", "temperature", "top_p")}
    found["tokens_per_second"] = statistics.median(answer(temp=0.0) for _ in range(ROUNDS))
    print(json.dumps(found))
    llm.close()


def with_program(settings: dict, args: argparse.Namespace) -> dict:
    """Return the like of autodeco-cli."""
    rpc = ["--rpc", args.rpc] if args.rpc else []
    found = {}
    for name, asked in ASKED.items():
        command = [args.program, "-m", args.model, "--heads", args.heads, "-p", PROMPT, "-n", TOKENS, "-c", 512]
        command += ["-g", 99, "--temp", asked["temp"], "-s", SEED, "--ignore-eos", "--json", *rpc, *flags(settings)]
        done = run([*command, "--verbose"])
        if done.returncode:
            return ended(run(command))  # in the one line that a user sees
        *rows, summary = map(json.loads, done.stdout.splitlines())
        found[name] = {key: [row[key] for row in rows] for key in ("token", "temperature", "top_p")}
        found.setdefault("tokens_per_second", summary["tokens_per_second"])
    return found | placed(done.stderr)


def with_server(settings: dict, args: argparse.Namespace) -> dict:
    """Return the like of autodeco-server."""
    rpc = ["--rpc", args.rpc] if args.rpc else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [args.server, "-m", args.model, "--autodeco", args.heads, "-ngl", 99, "-c", 512, "-np", 1, "-fit", "off"]
    command += ["--offline", "-lv", 5, "--host", "127.0.0.1", "--port", port, *rpc, *flags(settings)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, env=os.environ | TELLING
        ) as server:
            try:
                found = asked_by_http(f"http://127.0.0.1:{port}", server)
            finally:
                server.terminate()
        log.seek(0)
        said = log.read()
    if found is None:
        errors = [line for line in said.splitlines() if " E " in line or "error" in line]
        return {"failed": next((line for line in errors if "split" in line), (errors or [""])[-1]), "lines": 1}
    return found | placed(said)


def asked_by_http(address: str, server: subprocess.Popen) -> dict | None:
    """Return the answers of a server, or None where it ends before it answers."""
    while True:
        if server.poll() is not None:
            return None
        with contextlib.suppress(OSError), urllib.request.urlopen(address + "/health", timeout=5):
            break
        time.sleep(0.1)
    found = {}
    for name, asked in ASKED.items():
        body = {"prompt": PROMPT, "n_predict": TOKENS, "temperature": asked["temp"], "seed": SEED}
        # no "ignore_eos": it is a bias of logits, with which the host draws; so an answer may end early
        body |= {"autodeco": True, "cache_prompt": False}
        request = urllib.request.Request(address + "/completion", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=120) as answer:
            told = json.load(answer)
        found[name] = {key: told["autodeco"][key] for key in ("token", "temperature", "top_p")}
        found["tokens_per_second"] = told["timings"]["predicted_per_second"]
    return found


def agreement(here: dict, alone: dict) -> tuple[int, float]:
    """Return how many tokens two answers begin with alike, and how far T and P are apart in those."""
    pairs = zip(here["token"], alone["token"], strict=True)
    same = next((i for i, (one, other) in enumerate(pairs) if one != other), len(alone["token"]))
    apart = [
        abs(one - other)
        for name in ("temperature", "top_p")
        for one, other in zip(here[name][:same], alone[name][:same], strict=True)
    ]
    return same, math.nan if any(map(math.isnan, apart)) else max(apart, default=0.0)


def faults(way: str, found: dict, alone: dict) -> list[str]:
    """Return what is wrong with what a way gave; ``found`` gets how far it agrees with one GPU."""
    if "failed" in found:
        may = way.startswith(("rows", "tensor"))
        clear = found["lines"] == 1 and "split" in found["failed"]
        return [] if may and clear else [f"not refused in one line that names the split mode: {found['failed']}"]
    if way == "tensor parallelism":
        return ["not refused"]
    wrong = []
    most = 0.1 if way.startswith("rows") else 1e-3
    for name in ASKED:
        same, apart = agreement(found.pop(name), alone[name])
        found |= {f"{name}_tokens_the_same": same, f"{name}_greatest_difference": apart}
        if same < (1 if way.startswith("rows") else len(alone[name]["token"])):
            wrong.append(f"{name}: token {same + 1} is another one")
        if not apart < most:
            wrong.append(f"{name}: T or P differs by {apart:.2g}")
    found["over_one_gpu"] = found["tokens_per_second"] / alone["tokens_per_second"]
    if "CPU" in found["splits"][1:] or not found["splits"][1:]:
        wrong.append(f"the graph is divided into {found['splits']}: the CPU has more than the embedding")
    if not way.startswith("rows"):
        held, wanted = len(found["mib"]), 1 if way in ON_THE_SECOND else 2
        if held != wanted or alone["mib"].keys() == found["mib"].keys():
            wrong.append(f"layers are on {', '.join(found['mib']) or 'no GPU'}")
    return wrong


def compared(take: Callable[[dict], dict], ways: Iterable[str]) -> dict:
    """Return what each of ``ways`` gives, with its ``faults``, and what one GPU gives."""
    alone = take(ALONE)
    if "failed" in alone:
        return {"one GPU": alone | {"faults": [alone["failed"]]}}
    report = {}
    for way in ways:
        found = take(WAYS[way])
        wrong = faults(way, found, alone)
        report[way] = found | {"faults": wrong}
    kept = {key: alone[key] for key in ("tokens_per_second", "mib", "splits")}
    return {"one GPU": kept | {"faults": []}} | report


def shown(way: str, row: dict) -> str:
    """Return a line on a way."""
    if "failed" in row:
        told = f"refused: {row['failed']}"
    elif "greedy_tokens_the_same" not in row:
        told = f"{row['tokens_per_second']:.1f} tokens per second"
    else:
        told = f"{row['greedy_tokens_the_same']} greedy and {row['drawn_tokens_the_same']} drawn tokens the same, "
        told += f"T and P to {max(row['greedy_greatest_difference'], row['drawn_greatest_difference']):.1e}, "
        told += f"{row['over_one_gpu']:.2f} of the speed of one GPU"
    return told + "".join(f"; WRONG: {fault}" for fault in row["faults"])


def gpus() -> list[str]:
    """Return the names of the GPUs that the driver shows."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the arguments; files that are not there, and too few GPUs, are an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("heads", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the result, as JSON")
    parser.add_argument("--program", type=Path, help="autodeco-cli, to try as well")
    parser.add_argument("--server", type=Path, help="autodeco-server, to try as well")
    parser.add_argument("--rpc", help="two servers of llama.cpp's RPC in the place of GPUs: HOST:PORT,HOST:PORT")
    args = parser.parse_args(arguments)
    for path in (args.model, args.heads, args.program, args.server):
        if path is not None and not path.is_file():
            parser.error(f"{path}: no such file")
    args.devices = args.rpc.split(",") if args.rpc else gpus()
    if len(args.devices) < 2:
        parser.error(f"wants two GPUs, and the driver shows {len(args.devices)}")
    return args


def main(arguments: list[str]) -> int:
    """Write the result; return 1 where anything is wrong."""
    args = read_arguments(arguments)
    kinds = {"autodeco.Llama": with_python}
    kinds |= {"autodeco-cli": with_program} if args.program else {}
    kinds |= {"autodeco-server": with_server} if args.server else {}
    began = time.monotonic()
    report: dict = {"devices": args.devices, "model": args.model.name, "tokens": TOKENS}
    wrong = 0
    for kind, take in kinds.items():
        ways = OF_A_SERVER if take is with_server else WAYS
        report[kind] = compared(lambda settings, take=take: take(settings, args), ways)
        for way, row in report[kind].items():
            wrong += bool(row["faults"])
            print(f"{kind}, {way}: {shown(way, row)}", flush=True)
        report["seconds"] = round(time.monotonic() - began, 1)
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(wrong > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["python"]:
        python(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
    else:
        sys.exit(main(sys.argv[1:]))
