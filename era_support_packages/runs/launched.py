"""One of the processes that `launching` starts through torchrun: it trains a prepared run together with the others."""

import io
import os
import pickle
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import torch

from era_support_packages.runs.folder import Run
from era_support_packages.runs.launching import KEY
from era_support_packages.runs.preparation import PreparedRun, Report
from era_support_packages.runs.recording import train_in_folder, train_prepared
from era_support_packages.runs.together import in_words, load_prepared
from era_support_packages.system.children import portable
from era_support_packages.system.interrupts import ignore_signals
from era_support_packages.system.processes import Processes, SaidElsewhere, join, leave
from era_support_packages.system.torchrun import started_by_torchrun
from era_support_packages.training.setup import build_model


class _Words(io.TextIOBase):
    """A stream that shows what is written to it where the run was started, as a progress bar does."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, text: str) -> int:
        """Send it."""
        self._connection.send(("bar", text))
        return len(text)


def main(file: str) -> int:
    """Train as the file says, together with the others; returns the exit code."""
    asked = pickle.loads(Path(file).read_bytes())
    connection = Client(asked["address"], authkey=bytes.fromhex(os.environ.pop(KEY)))
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    started = started_by_torchrun()
    assert started is not None  # it has started several
    if started.rank:
        os.environ["TQDM_DISABLE"] = "1"
    else:
        sys.stderr = _Words(connection)
    try:
        processes = join(started)
        _train(processes, asked, connection)
        leave()
        return 0
    except BaseException as error:
        try:
            ignore_signals()
            traceback.print_exception(error, file=sys.__stderr__)
            if not isinstance(error, KeyboardInterrupt | SaidElsewhere):
                connection.send(("failed", portable(in_words(error))))
            if sys.__stderr__ is not None:
                sys.__stderr__.flush()
        finally:  # also where a signal came just before, or nobody hears it any more
            os._exit(1)


def _end_with(connection: Connection) -> None:
    """Stop as after SIGTERM once the process that started it is gone, which never says anything."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


def _train(processes: Processes, asked: dict[str, Any], connection: Connection) -> None:
    run = Run(asked["folder"])

    def first() -> tuple[dict[str, Any], dict[str, Any]]:
        kept = run.data()
        return run.config().to_dict(), {} if kept is None else kept.to_dict()

    config, data = processes.settled(first)
    prepared = processes.together(lambda: load_prepared(processes, run, config, data, asked["data_root"]))

    def report(line: str) -> None:
        if processes.first:
            connection.send(("line", line))

    report(f"{processes.count} processes train this run together, each on its own slice of every batch.")
    if asked["again"]:  # with its range test
        train_prepared(prepared, report, lambda record: connection.send(("epoch", record)))
    else:
        _from_start(prepared, asked["start"], report, connection)


def _from_start(prepared: PreparedRun, start: Path, report: Report, connection: Connection) -> None:
    """Train from the weights that the network had where it was started."""
    model = build_model(prepared.config, len(prepared.train.classes), prepared.train, from_weights=False, report=report)
    model.load_state_dict(torch.load(start, weights_only=True))
    train_in_folder(model, prepared, report, lambda record: connection.send(("epoch", record)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
