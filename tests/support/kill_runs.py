"""Kill a training process again and again and see that nothing is lost.

python tests/support/kill_runs.py --kills 40 --seed 0

ResNet18 learns a few handwritten digits for some epochs, and in every second run a few photos, which two workers decode as they
are needed. The process is killed with SIGKILL at moments drawn by the seed, between steps and inside the writing of checkpoints,
and started again until the run is done; its workers must end with it. Weights, rows (without seconds) and predictions must then
equal those of a run that nobody disturbed and that held its images in memory, bit by bit; and no epoch whose checkpoint was
complete may have been trained again. The faults come from outside: this file wraps functions of the package in the process that
is to die.
"""

import argparse
import io
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from left_behind import left_behind
from photo_folder import write_photos
from same_runs import differences
from tiny import quiet
from tqdm import tqdm

from era_support_packages.datasets import loading, workers
from era_support_packages.datasets.digits import load_digits
from era_support_packages.runs import preparation, recording
from era_support_packages.system import atomic_file
from era_support_packages.training import loop as training
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.setup import build_model
from era_support_packages.training.step import TrainingStep

EPOCHS, BATCHES, BATCH_SIZE = 5, 4, 16
KILLS_A_RUN = 5
WORKERS = "workers.log"
# of a checkpoint: some bytes are in the temporary file; all are; they are on the disk; it has its name; the table is next
WRITE_POINTS = ("first bytes", "all bytes", "flushed to disk", "before its name", "after its name")


@dataclass(frozen=True)
class Moment:
    """When to die: before a step of an epoch (the first step counts as 1), or at a point of writing the epoch's checkpoint."""

    epoch: int
    step: int | None = None
    point: str | None = None

    def __str__(self) -> str:
        return f"epoch {self.epoch}, " + (f"step {self.step}" if self.point is None else f"checkpoint: {self.point}")

    @property
    def complete_epochs(self) -> int:
        """The epochs whose checkpoint is complete afterwards."""
        return self.epoch if self.point == "after its name" else self.epoch - 1


class WrongResultError(AssertionError):
    """A resumed run differs from the undisturbed one."""


def train(folder: Path, log: Path, moment: Moment | None, photos: Path | None = None, stream: bool = False) -> None:
    """Train, or go on, until the moment or the end; appends the number of each epoch to `log` as it begins.

    photos: a folder to learn instead of digits, streamed or in memory; the workers append their process ids to `workers.log`.
    """
    tqdm.set_lock(threading.RLock())  # its own one is shared with other processes and would be left behind
    now = {"epoch": 0, "step": 0}
    _watch(training, "_train_epoch", lambda step, batches, epoch, *_: _begin(now, epoch.epoch, log))
    _watch(TrainingStep, "__call__", lambda *_: _step(now, moment))
    if moment is not None and moment.point is not None:
        _watch_writing(now, moment)
    if photos is None:
        train, test = load_digits()  # as many as the run shows in an epoch, and forty to test on
        few = train.take(np.arange(BATCHES * BATCH_SIZE)), test.take(np.arange(40))
        mock.patch.object(loading, "load", return_value=few).start()
        data: dict[str, Any] = {"dataset": "digits"}
    else:
        multiprocessing.set_start_method("fork", force=True)  # as in a process of its own, and not that of the server
        _watch(workers, "_start_worker", lambda _: _note(folder / WORKERS, os.getpid()))
        data = {"dataset": str(photos), "image_size": 32, "engine": "samples", "stream": stream, "workers": 2 if stream else 0}
    prepared = preparation.prepare(
        "smoke",
        **data,
        epochs=EPOCHS,
        resolutions=[(8, 1.0)],
        batch_size=BATCH_SIZE,
        max_lr=0.05,
        run_name="run",
        output_dir=str(folder),
        device="cpu",
        precision="fp32",
        threads=1,
        report=quiet,
    )
    model = build_model(prepared.config, len(prepared.train.classes), prepared.train)
    recording.train_in_folder(model, prepared, quiet)


def _watch(owner: Any, name: str, before: Callable[..., None]) -> None:
    """Call `before` with the arguments of each call of a function."""
    function = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        return function(*arguments, **named)

    setattr(owner, name, watched)


def _begin(now: dict[str, int], epoch: int, log: Path) -> None:
    now.update(epoch=epoch, step=0)
    _note(log, epoch)


def _note(log: Path, number: int) -> None:
    with open(log, "a") as file:
        file.write(f"{number}\n")


def _step(now: dict[str, int], moment: Moment | None) -> None:
    if now["epoch"]:  # not the steps that are timed before the first epoch
        now["step"] += 1
        if moment is not None and (moment.epoch, moment.step) == (now["epoch"], now["step"]):
            _die()


def _watch_writing(now: dict[str, int], moment: Moment) -> None:
    """Die at a point of the write of the checkpoint of `moment.epoch`."""

    def at(point: str, path: Any) -> None:
        if moment.point == point and now["epoch"] == moment.epoch and Path(path).name.strip(".").startswith("checkpoint.pt"):
            _die()

    opened: list[Path] = []

    class Opened(io.FileIO):
        """An open file whose content is written in two parts."""

        def __init__(self, path: Path, mode: str) -> None:
            super().__init__(path, mode)
            opened.append(path)

        def write(self, content: Any) -> int:
            half = len(content) // 2
            written = super().write(content[:half])
            at("first bytes", self.name)
            return written + super().write(content[half:])

        def flush(self) -> None:
            super().flush()
            at("all bytes", self.name)

    def fsync(descriptor: int) -> None:
        os.fsync(descriptor)
        at("flushed to disk", opened[-1])

    def replace(source: Any, target: Any) -> None:
        at("before its name", target)
        os.replace(source, target)
        at("after its name", target)

    atomic_file.open, atomic_file.os = Opened, SimpleNamespace(getpid=os.getpid, fsync=fsync, replace=replace)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def draw_moments(kills: int, generator: random.Random) -> list[str]:
    """A kind for each kill, in random order: two of five inside the writing of a checkpoint, all points equally often."""
    writes = [WRITE_POINTS[number % len(WRITE_POINTS)] for number in range(round(kills * 0.4))]
    kinds = writes + ["step"] * (kills - len(writes))
    generator.shuffle(kinds)
    return kinds


def next_moment(kind: str, complete: int, generator: random.Random) -> Moment:
    """A moment of that kind in the next two epochs of a run with so many complete ones; never before its first step."""
    epoch = generator.randint(complete + 1, min(complete + 2, EPOCHS))
    if kind != "step":
        return Moment(epoch, point=kind)
    return Moment(epoch, step=generator.randint(2 if epoch == complete + 1 else 1, BATCHES))


def start(*arguments: Any) -> int:
    """`train` in a process of its own; its exit code, -9 where it was killed."""
    process = multiprocessing.get_context("forkserver").Process(target=train, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def check(condition: bool, sentence: str) -> None:
    """Raise `WrongResultError` where the condition does not hold."""
    if not condition:
        raise WrongResultError(sentence)


def run_with_kills(
    folder: Path, kinds: Sequence[str], generator: random.Random, photos: Path | None = None, stream: bool = False
) -> tuple[Checkpoint, int]:
    """One run, killed at a moment of each kind and started again until it is done; its checkpoint, and the kills there were.

    Where the run is done before all kinds had their turn, the rest is left for the next run.
    """
    log, complete, kills = folder / "epochs.log", 0, 0
    for kind in [*kinds, None]:
        if kind is not None and complete == EPOCHS:
            continue
        moment = None if kind is None else next_moment(kind, complete, generator)
        log.write_text("")
        code = start(folder, log, moment, photos, stream)
        started = (folder / WORKERS).read_text().split() if stream else []
        check(not (orphans := left_behind(map(int, started))), f"at {moment} the workers {orphans} were left behind")
        trained = [int(line) for line in log.read_text().split()]
        check(code == (0 if moment is None else -signal.SIGKILL), f"at {moment} the process ended with {code}")
        last = EPOCHS if moment is None else moment.epoch
        check(
            trained == list(range(complete + 1, last + 1)),
            f"with {complete} epochs complete, the process up to {moment} trained {trained}",
        )
        if moment is not None:
            kills += 1
            complete = moment.complete_epochs
            print(f"  killed at {moment}", flush=True)
        found = Checkpoint.load(folder / "run" / "checkpoint.pt") if (folder / "run" / "checkpoint.pt").exists() else None
        done = len(found.records) if found is not None else 0
        check(done == (EPOCHS if moment is None else complete), f"after {moment} the checkpoint holds {done} epochs")
    left = sorted(path.name for path in (folder / "run").iterdir())
    check(left == ["checkpoint.pt", "config.json", "data.json", "metrics.csv", "summary.json"], f"the folder holds {left}")
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()[1:]
    check([row.split(",")[0] for row in rows] == [str(epoch) for epoch in range(1, EPOCHS + 1)], f"metrics.csv has {rows}")
    return found, kills


def kill_runs(kills: int, seed: int) -> str:
    """The whole test; its closing line. Raises `WrongResultError` at the first difference."""
    # Processes are forked from a server that has imported everything and computed nothing.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["era_support_packages.runs.recording", "sklearn.datasets"])
    generator = random.Random(seed)
    kinds, done, runs = draw_moments(kills, generator), 0, 0
    inside = sum(kind in WRITE_POINTS[:-1] for kind in kinds)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"TQDM_DISABLE": "1"}):
        photos = write_photos(Path(folder) / "photos", train=-(-BATCHES * BATCH_SIZE // 3), test=8)
        places = (Path(folder) / f"run-{number}" for number in range(kills + 2))
        references = []
        for data in ((), (photos, False)):
            (place := next(places)).mkdir()
            references.append(run_with_kills(place, [], generator, *data)[0])
        while done < kills:
            streams = runs % 2 == 1
            runs += 1
            (place := next(places)).mkdir()
            data = (photos, True) if streams else ()
            result, killed = run_with_kills(place, kinds[done : done + KILLS_A_RUN], generator, *data)
            done += killed
            different = differences(references[streams], result)
            check(not different, f"run {runs} differs from the undisturbed one in {', '.join(different)}")
    return (
        f"{done} kills in {runs} runs of {EPOCHS} epochs, by turns from memory and from a stream, {inside} of them inside the "
        f"writing of a checkpoint (seed {seed}): weights, rows and predictions equal the undisturbed run from memory bit by bit, "
        "no complete epoch was trained again, and no worker was left behind."
    )


def main(
    arguments: Sequence[str] | None = None, run: Callable[[int, int], str] = kill_runs, description: str = str(__doc__)
) -> int:
    """The command line; returns the exit code: 0, or 1 for any difference. run: takes the number of kills and the seed."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="how often to kill (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args(arguments)
    try:
        print(run(options.kills, options.seed))
    except WrongResultError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
