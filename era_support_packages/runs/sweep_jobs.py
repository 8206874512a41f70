"""The trials of a sweep shared out over several processes of this machine: one for each GPU, or some on the cores of a CPU."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import torch

from era_support_packages.runs.folder import Run
from era_support_packages.runs.sweep_result import TrialRun
from era_support_packages.runs.sweep_values import SweepError
from era_support_packages.runs.trials import PAUSE, Begin, Task, Trainer, Watcher
from era_support_packages.system.children import PATIENCE, Child, ChildLostError, raise_told
from era_support_packages.system.machine import BF16_TOLD, resolve_device, resolve_precision
from era_support_packages.system.plain_error import PlainError

WORKER = [sys.executable, "-m", "era_support_packages.runs.sweep_worker"]


class NoProcessLeftError(PlainError, RuntimeError):
    """No process of a sweep can train any more."""


class DeviceLostError(ChildLostError):
    """The process cannot use its GPU any more, and no other one on that GPU could."""


class EndedError(Exception):
    """The sweep ends; its threads end too."""


@dataclass(frozen=True)
class Jobs:
    """How many processes there are, what each has of the machine in words, and the environment of each."""

    count: int
    each: str
    environments: tuple[Mapping[str, str], ...]


def share_machine(asked: int | str, device: str | None, environment: Mapping[str, str] = os.environ) -> Jobs:
    """What so many processes have of this machine; "all" is one for each GPU, or for each thread of PyTorch on a CPU.

    device: as a sweep gives it to all trials. More processes than GPUs take these in turn. Raises `SweepError` where one GPU is
    named, and `ValueError` where it is not there.
    """
    found = resolve_device(device or "auto")
    threads = torch.get_num_threads()
    gpus: list[str] = []
    if found.type == "cuda":
        if asked == 1:
            return Jobs(1, "", ())
        if device not in (None, "auto", "cuda"):
            raise SweepError(f"device is {device!r}, but --jobs shares the trials out over the GPUs: set device to 'cuda'.")
        gpus = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if gpus == [""]:
            gpus = [str(number) for number in range(torch.cuda.device_count())]
    count = int(asked) if asked != "all" else len(gpus) or (threads if found.type == "cpu" else 1)
    share = max(1, threads // count)
    common = {**environment, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(share)}
    if found.type == "cpu":  # on a busy machine each of them would find something else
        common[BF16_TOLD] = str(int(resolve_precision("auto", found) == "bf16"))
    own = [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]
    words = f"{share} thread{'s' * (share > 1)}"
    if gpus:
        words = "a GPU" if count <= len(gpus) else f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} in turn"
    return Jobs(count, words, tuple({**common, **values} for values in own))


class Seat:
    """One of the processes, started when there is something to train; when it has ended another one takes its place."""

    def __init__(self, number: int, environment: Mapping[str, str], first: Any) -> None:
        self.number, self._environment, self._first = number, environment, first
        self._child: Child | None = None
        self._closed = False
        self._lock = threading.Lock()

    def child(self) -> Child:
        """The process that sits here now. Raises `EndedError` once the sweep ends."""
        with self._lock:
            if self._closed:
                raise EndedError
            if self._child is None:
                self._child = Child(WORKER, self._environment)
                self._child.tell(self._first)
            return self._child

    def leave(self) -> None:
        """Forget a process that has ended."""
        with self._lock:
            if self._child is not None and not self._closed:
                self._child.end()
                self._child = None

    def close(self) -> None:
        """No process sits here any more; one that trains is asked to end."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.ask_to_end()

    def end(self, seconds: float = PATIENCE) -> None:
        """Wait for its end."""
        if self._child is not None:
            self._child.end(seconds)


class Seats:
    """All of them, and which are free."""

    def __init__(self, jobs: Jobs, first: Any) -> None:
        self.all = [Seat(number, environment, first) for number, environment in enumerate(jobs.environments, 1)]
        self._free: queue.Queue[Seat | None] = queue.Queue()
        self.closing = threading.Event()
        self._left = len(self.all)
        for seat in self.all:
            self._free.put(seat)

    def take(self) -> Seat:
        """A free seat, waited for. Raises `EndedError` once the sweep ends, and `NoProcessLeftError` where there are none."""
        seat = self._free.get()
        if seat is None:
            self._free.put(None)  # for the next who asks
            if self.closing.is_set():
                raise EndedError
            raise NoProcessLeftError("No GPU is left that works: restart the machine, and give the same command again.")
        return seat

    def give_back(self, seat: Seat) -> None:
        """Others may have it."""
        self._free.put(seat)

    def give_up(self) -> None:
        """One that was taken is of no more use."""
        self._left -= 1
        if self._left == 0:
            self._free.put(None)

    def close(self) -> None:
        """End all processes; those that do not end by themselves within seconds are killed, and so are all after a Ctrl-C."""
        self.closing.set()
        self._free.put(None)
        until = time.monotonic() + PATIENCE
        try:
            for seat in self.all:
                seat.close()
            for seat in self.all:
                seat.end(max(until - time.monotonic(), 0.0))
        finally:
            for seat in self.all:
                seat.end(0.0)


@dataclass(frozen=True, eq=False)
class SharedTrainer(Trainer):
    """A `Trainer` whose runs are trained by the processes of `seats`."""

    seats: Seats = field(kw_only=True)
    telling: Any = field(kw_only=True)

    @classmethod
    def of(cls, trainer: Trainer, jobs: Jobs) -> "SharedTrainer":
        """The same trainer with processes, none of which is started yet."""
        seats = Seats(jobs, (trainer.plan, trainer.data_root, trainer.name))
        telling = threading.RLock()

        def report(line: str) -> None:
            with telling:
                trainer.report(line)

        return cls(trainer.plan, trainer.data, trainer.data_root, report, seats=seats, telling=telling)

    @property
    def count(self) -> int:
        """How many trials are trained at once."""
        return len(self.seats.all)

    def each(self, work: Callable[[int], None], numbers: Iterable[int]) -> None:
        """Do the work for each of the numbers, so many at once; what it raises ends all."""
        with ThreadPoolExecutor(self.count) as pool:
            going = [pool.submit(work, number) for number in numbers]
            try:
                for one in as_completed(going):
                    one.result()
            except BaseException:
                for one in going:
                    one.cancel()
                self.seats.close()  # else the threads would wait for them
                raise

    def wait(self) -> None:
        """For what others train. Raises `EndedError` once the sweep ends."""
        if self.seats.closing.wait(PAUSE):
            raise EndedError

    def tell_once(self, *lines: str) -> None:
        """Report what was not reported before."""
        with self.telling:
            super().tell_once(*lines)

    def train(self, task: Task, begin: Begin | None = None, watcher: Watcher | None = None) -> TrialRun | None:
        """As `Trainer.train`, in one of the processes; where that one ends, once more in another."""
        runs: list[str] = []

        def begin_there(run: Run) -> None:
            runs.append(run.name)
            if begin is not None:
                begin(run)

        for again in (True, False):
            seat = self.seats.take()
            try:
                run = self._trained_by(seat, task, begin_there, watcher)
            except ChildLostError as error:
                if self.seats.closing.is_set():
                    raise EndedError from None
                lost = str(error)
                seat.leave()
                then = "another one takes it" if again else "as that happened twice, the trial is given up"
                self.report(f"Process {seat.number} of {self.count} {lost}, as it trained {task}: {then}.")
                if isinstance(error, DeviceLostError):
                    self.seats.give_up()
                else:
                    self.seats.give_back(seat)
                continue
            except BaseException:
                self.seats.give_back(seat)
                raise
            self.seats.give_back(seat)
            return run
        return TrialRun(runs[-1] if runs else "", task.seed, problem=f"The process that trained it {lost}, twice.")

    def _trained_by(self, seat: Seat, task: Task, begin: Begin, watcher: Watcher | None) -> TrialRun | None:
        child = seat.child()
        child.tell((task, watcher is not None))
        watch: Any = None
        stop: BaseException | None = None
        while True:
            kind, value = child.hear()
            if kind == "done":
                return value
            if kind == "stopped":
                assert stop is not None  # it was asked to
                raise stop
            if kind == "failed":
                raise_told(value)
            if kind == "lost":
                how = f"cannot use its GPU any more ({value.rstrip('.')})"
                raise DeviceLostError(how)
            if kind == "line":
                self.tell_once(f"{task}: {value}" if value.startswith("Warning") else value)
                continue
            try:
                if kind == "begin":
                    begin(Run(self.root / value))
                elif kind == "planned" and watcher is not None:
                    watch = watcher(value)
                else:
                    watch(value)
            except BaseException as error:
                stop = error
            child.tell(stop is None)
