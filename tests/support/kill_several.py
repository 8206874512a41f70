"""Kill one of two processes of a training under torchrun again and again: the run must go on by itself as if nothing had been.

torchrun starts both again after each kill (`--max-restarts`). Weights, rows (without seconds) and predictions must then equal
those of two processes that nobody disturbed, bit by bit, and each epoch must be recorded once.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kill_runs import EPOCHS, KILLS_A_RUN, check, draw_moments, main, next_moment
from same_runs import differences

from era_support_packages.training.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
OPTIONS = ["train", "--preset", "smoke", "--dataset", "digits", "--epochs", str(EPOCHS), "--resolutions", "[[8, 1.0]]"]
OPTIONS += ["--batch-size", "16", "--max-lr", "0.05", "--device", "cpu", "--precision", "fp32", "--run-name", "run", "--quiet"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
    "ERA_COLLECTIVE_TIMEOUT": "300",  # a busy machine is slow
    "TQDM_DISABLE": "1",
}


def draw(kinds: Sequence[str], generator: random.Random) -> list[list[object]]:
    """A moment for each kind, one after another: in the writing of a checkpoint the first process, at a step either."""
    moments, complete = [], 0
    for kind in kinds:
        if complete < EPOCHS:
            moment = next_moment(kind, complete, generator)
            rank = 0 if moment.point else generator.randrange(2)
            moments.append([rank, moment.epoch, moment.step, moment.point])
            complete = moment.complete_epochs
    return moments


def run(folder: Path, moments: list[list[object]]) -> tuple[Checkpoint, list[str], str]:
    """One run, killed at these moments and started again by torchrun; its checkpoint, the kills, what was said."""
    file = folder / "moments.json"
    file.write_text(json.dumps(moments))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(len(moments)), str(ROOT / "tests" / "support" / "dying_worker.py"), str(file)]
    command += [*OPTIONS, "--output-dir", str(folder)]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"torchrun ended with {done.returncode}: {done.stderr[-3000:]}")
    log = file.with_suffix(".log")
    kills = log.read_text().splitlines() if log.exists() else []
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()[1:]
    check([row.split(",")[0] for row in rows] == [str(epoch) for epoch in range(1, EPOCHS + 1)], f"metrics.csv has {rows}")
    return Checkpoint.load(folder / "run" / "checkpoint.pt"), kills, done.stderr


def kill_several(kills: int, seed: int) -> str:
    """The whole test; its closing line. Raises `WrongResultError` at the first difference."""
    generator = random.Random(seed)
    kinds, done, runs = draw_moments(kills, generator), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / str(number) for number in range(kills + 1))
        undisturbed = next(places)
        undisturbed.mkdir()
        reference, _, _ = run(undisturbed, [])
        while done < kills:
            place = next(places)
            place.mkdir()
            moments = draw(kinds[done : done + KILLS_A_RUN], generator)
            result, killed, said = run(place, moments)
            check(len(killed) == len(moments), f"of {moments} only these were reached: {killed}")
            check("Another process of this run has ended" in said, f"no sentence among {said[-3000:]}")
            different = differences(reference, result)
            check(not different, f"run {runs + 1} differs from the undisturbed one in {', '.join(different)}")
            done, runs = done + len(killed), runs + 1
            print(*(f"  killed at {moment}" for moment in killed), sep="\n", flush=True)
    return f"{done} kills of one of two processes in {runs} runs of {EPOCHS} epochs (seed {seed}): all equal the undisturbed run."


if __name__ == "__main__":
    sys.exit(main(run=kill_several, description=__doc__))
