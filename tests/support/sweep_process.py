"""A process of a sweep on 24 small images: it writes down what it trains, and may be killed or fail in the middle of it.

In the environment: SWEEP_LOG is a file that gets a line "PID RUN SPLIT" for each time that a network predicts a split.
SWEEP_FAULT is "KIND RATE TIMES": how trials of that rate go wrong ("kill", "full", "device"), and how often.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from unittest import mock

from tiny import colored_images, tiny_network

from era_support_packages.datasets import loading
from era_support_packages.runs import recording, sweep_worker, trials
from era_support_packages.training import loop

LOG = Path(os.environ["SWEEP_LOG"])
FAULT = os.environ.get("SWEEP_FAULT", "none 0 0").split()


def fault(rate: float) -> None:
    """What goes wrong with a trial of that rate, once its first epoch is on the disk."""
    kind, wanted, times = FAULT[0], float(FAULT[1]), int(FAULT[2])
    file = LOG.with_suffix(".faults")
    before = file.read_text().count("x") if file.exists() else 0
    if rate != wanted or before >= times:
        return
    with open(file, "a") as faults:
        faults.write("x")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    raise RuntimeError("CUDA error: unspecified launch failure")


def main() -> int:
    """The process as it is, but for its data, its network and its faults."""
    now: list[tuple[str, float]] = []
    train, predict, save = recording.train_in_folder, loop.predict, recording.Checkpoint.save

    def training(model, prepared, *rest):
        now[:] = [(prepared.run.name, prepared.config.max_lr)]
        return train(model, prepared, *rest)

    def predicting(model, split, *rest, **options):
        with open(LOG, "a") as log:
            log.write(f"{os.getpid()} {now[0][0]} {split.split}\n")
        return predict(model, split, *rest, **options)

    def saving(self, path):
        save(self, path)
        fault(now[0][1])

    data = colored_images(24), colored_images(10, split="test", seed=1)
    with (
        mock.patch.object(loading, "load", return_value=data),
        mock.patch.object(recording.PreparedRun, "build_model", side_effect=lambda *_: tiny_network()),
        mock.patch.object(recording, "train_in_folder", training),
        mock.patch.object(recording.Checkpoint, "save", saving),
        mock.patch.object(recording, "predict", predicting),
        mock.patch.object(loop, "predict", predicting),
        mock.patch.object(trials, "PAUSE", 0.05),
    ):
        return sweep_worker.main()


if __name__ == "__main__":
    sys.exit(main())
