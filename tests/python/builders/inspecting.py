"""`autodeco inspect`, in this process."""

import argparse

from autodeco.commands import inspect
from autodeco.settings.program import reports_errors


def run_inspect(*arguments) -> int:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)

    def main(argv):
        return inspect.run(parser.parse_args(argv))

    main.__module__ = "autodeco.cli"
    return reports_errors("autodeco")(main)(list(arguments))


def lines(capsys) -> dict[str, str]:
    said = capsys.readouterr().out.splitlines()
    return {label: value.strip() for label, _, value in (line.partition(":") for line in said) if value}
