"""The ``autodeco`` command: one verb, one module under ``autodeco.commands``."""

import importlib
from collections.abc import Sequence

from autodeco import __version__
from autodeco.settings.program import Parser, one_line_warnings, reports_errors

VERBS = {
    "tune": "heads for a model and problems, judged: all of it in one command, with a verdict",
    "demo": "tune a small model in minutes, and show what its heads gain on problems that no training saw",
    "rollout": "sample a model's own answers to problems and keep those that a checker finds right",
    "collect": "run a GGUF model over completions and keep its hidden states",
    "train": "train heads on likelihood, from collected hidden states or a Hugging Face model",
    "reward": "train heads on rewards: a model's own answers to problems, scored by a checker",
    "control": "have heads follow commands in the prompt: be certain, be diverse, randomness 3 of 10",
    "generate": "generate text with heads, optionally coloured by temperature or top-p",
    "serve": "serve a model with its heads: OpenAI's API, and a page that shows what was picked",
    "eval": "compare heads with greedy, default and tuned settings, and with their own mean, on problems with answers",
    "bench": "tokens per second of heads against stock static sampling",
    "inspect": "say what is in a GGUF file: a model, heads, or both",
}

EPILOG = """All arguments of a verb can stand in a YAML file, --config FILE.yaml; flags win over it. A verb that is
interrupted (Ctrl-C, SIGTERM) keeps what is done, and goes on where the same command is given again; `train` and
`reward` with --resume. Exit codes: 0; 2 when something is wrong, which one line says; 130 after Ctrl-C, 143 after
SIGTERM."""


@reports_errors("autodeco")
def main(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` (default: the process arguments), run one verb and return its exit code."""
    parser = Parser(
        prog="autodeco", description="Language models that pick temperature and top-p for every token.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"autodeco {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        command = importlib.import_module(f"autodeco.commands.{verb}")
        verb_parser = verbs.add_parser(verb, help=summary, description=command.__doc__)
        command.add_arguments(verb_parser)
        verb_parser.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    with one_line_warnings():
        return args.run(args) or 0
