"""`train` under torchrun on a few digits, in which one of the processes is killed at each of its first starts.

Its first argument is a file of JSON: a list of [rank, epoch, step, point], one for each start; the last three make a `Moment`.
A process that kills itself adds a line to the file of the same name with ".log" at its end. All other arguments are those of the
command line.
"""

import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from kill_runs import BATCH_SIZE, BATCHES, Moment, _step, _watch, _watch_writing

from era_support_packages.commands.command_line import main
from era_support_packages.datasets import loading
from era_support_packages.datasets.digits import load_digits
from era_support_packages.training import loop
from era_support_packages.training.step import TrainingStep


def die_at(moment: Moment, log: Path) -> None:
    """Let this process be killed at that moment."""
    now = {"epoch": 0, "step": 0}
    kill = os.kill

    def noted(process: int, number: int) -> None:
        with open(log, "a") as file:
            file.write(f"{moment}\n")
        kill(process, number)

    os.kill = noted
    _watch(loop, "_train_epoch", lambda _step, _batches, epoch, *_: now.update(epoch=epoch.epoch, step=0))
    _watch(TrainingStep, "__call__", lambda *_: _step(now, moment))
    if moment.point is not None:
        _watch_writing(now, moment)


if __name__ == "__main__":
    file, rank, start = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    moments = json.loads(file.read_text())
    if start < len(moments) and moments[start][0] == rank:
        die_at(Moment(*moments[start][1:]), file.with_suffix(".log"))
    train, test = load_digits()
    few = train.take(np.arange(BATCHES * BATCH_SIZE)), test.take(np.arange(40))
    with mock.patch.object(loading, "load", return_value=few):
        sys.exit(main(sys.argv[2:]))
