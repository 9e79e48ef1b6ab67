"""Run `autodeco`; in the middle of its third update the first of several processes, and no other, is interrupted."""

import os
import signal
import sys

from autodeco import cli
from autodeco.rewards import loop as rewards
from autodeco.training import loop as likelihood
from autodeco.training.schedule import learning_rate


def pressed(step, arguments):
    if step == 2 and os.environ["RANK"] == "0":
        signal.raise_signal(signal.SIGINT)
    return learning_rate(step, arguments)


if __name__ == "__main__":
    likelihood.learning_rate = rewards.learning_rate = pressed
    sys.exit(cli.main(sys.argv[1:]))
