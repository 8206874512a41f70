"""The processes that train one run together: which of them this one is, and what they tell each other.

`ALONE` is the only process of a run: whatever it asks for is what it has already. What several exchange goes by
`torch.distributed`, gloo for the memory of the CPU and NCCL for that of GPUs. Each of them must ask for the same in the same
order.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from era_support_packages.system.interrupts import ignore_signals
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.torchrun import Started

T = TypeVar("T")
TIMEOUT = 50  # seconds that a process waits for the others within training
PATIENCE = timedelta(days=1)  # for what one does alone while the others wait: a download, the decoding of a folder


class ProcessLostError(PlainError, RuntimeError):
    """Another process of the run ended, or does not answer."""


class OtherProcessError(PlainError, RuntimeError):
    """What went wrong in another process of the run, said by the first."""


class SaidElsewhere(PlainError, RuntimeError):
    """The first process says what went wrong; this one only ends."""


@dataclass(frozen=True)
class Processes:
    """One of the processes of a run.

    rank: its number, 0 for the one that writes and prints. count: of all. local_rank: its number on its machine. group: what
    they exchange gradients and results by; who does not answer there within `TIMEOUT` is given up.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    group: Any = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def bar(self) -> dict[str, Any]:
        """Options for a progress bar: only the first process shows one."""
        return {} if self.first else {"disable": True}

    def device(self, name: str) -> str:
        """The device of this process, where "cpu" or "cuda:0" is that of the first. Raises `ValueError` where it has none."""
        if self.count == 1 or name == "cpu":
            return name
        if name not in ("cuda", "cuda:0"):
            raise ValueError(f"device is {name!r}, but each of several processes takes a GPU of its own: give 'cuda' or 'cpu'.")
        if self.local_rank >= (found := torch.cuda.device_count()):
            raise ValueError(
                f"Process {self.local_rank + 1} of this machine finds no GPU for itself, as there are {found}: start "
                f"{max(found, 1)} of them (torchrun --nproc-per-node {max(found, 1)}), or give device='cpu'."
            )
        return f"cuda:{self.local_rank}"

    def share(self, values: np.ndarray, batch_size: int) -> np.ndarray:
        """This process's consecutive slice of each batch in `values` (batches * batch_size, ...)."""
        if self.count == 1:
            return values
        slices = values.reshape(-1, self.count, batch_size // self.count, *values.shape[1:])
        return slices[:, self.rank].reshape(-1, *values.shape[1:])

    # ---- exchanged within training ------------------------------------------------------------------------------------

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values, group=self.group)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same bits on each; NaN where it is NaN on one."""
        return self.total(values) / self.count if self.count > 1 else values

    def any(self, flag: bool) -> bool:
        """Whether it is true on any."""
        return flag if self.count == 1 else bool(self.total(torch.tensor(int(flag))))

    def gathered(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks."""
        found: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(found, value, group=self.group)
        return found

    def from_first(self, value: T) -> T:
        """The value that the first process has."""
        if self.count == 1:
            return value
        held = [value if self.first else None]
        dist.broadcast_object_list(held, src=0, group=self.group, device=torch.device("cpu"))
        return held[0]  # type: ignore[return-value]

    def send(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0, group=self.group)

    def share_out(self, parts: Sequence[Tensor]) -> None:
        """Overwrite each of the tensors, one for each process, by what that one has in it."""
        if self.count > 1:
            full = [(rank, part) for rank, part in enumerate(parts) if len(part)]
            for work in [dist.broadcast(part, src=rank, group=self.group, async_op=True) for rank, part in full]:
                if work is not None:  # it is for processes outside of the group
                    work.wait()

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network with the gradients averaged over all processes as they are computed; the weights are the first's.

        Buffers stay each process's own: DistributedDataParallel would overwrite them by those of rank 0 at every forward.
        """
        if self.count == 1:
            return network
        self.send(tensor.detach() for tensor in network.state_dict().values())
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {switch: False}
        return DistributedDataParallel(network, process_group=self.group, **options)

    # ---- before and after training, where one may keep the others waiting ----------------------------------------------

    def settled(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, which alone does it. Where it fails there, all end."""
        if self.count == 1:
            return work()
        value: Any = None
        problem: Exception | None = None
        if self.first:
            try:
                value = work()
            except Exception as error:
                problem = error
        held = [value, problem is not None]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        if held[1]:
            self._end(problem, SaidElsewhere("The first process says why."))
        return held[0]

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns here, once all have done it. Where it fails in one, all end, and the first says why."""
        if self.count == 1:
            return work()
        value: Any = None
        problem: Exception | None = None
        try:
            value = work()
        except Exception as error:
            problem = error
        said: list[Any] = [None] * self.count
        dist.all_gather_object(said, None if problem is None else str(problem))
        failed = [rank for rank, text in enumerate(said) if text is not None]
        if failed and self.first:
            self._end(problem, OtherProcessError(f"In process {failed[0] + 1} of {self.count}: {said[failed[0]]}"))
        if failed:
            expected = problem is None or isinstance(problem, ValueError | OSError | PlainError)
            self._end(None if expected else problem, SaidElsewhere("The first process says why."))
        return value

    def _end(self, own: Exception | None, other: Exception) -> None:
        """Raise one of both, once all know that they end: torchrun ends the others as soon as it sees one that has failed."""
        ignore_signals()
        _meet()
        raise own or other


ALONE = Processes()


def timeout(environment: Mapping[str, str] = os.environ) -> int:
    """Seconds that a process waits for the others within training.

    Raises `ValueError` where ERA_COLLECTIVE_TIMEOUT in the environment is no number of seconds up to a day.
    """
    given = environment.get("ERA_COLLECTIVE_TIMEOUT", str(TIMEOUT))
    most = int(PATIENCE.total_seconds())
    if not given.isdecimal() or not 1 <= int(given) <= most:
        raise ValueError(
            f"ERA_COLLECTIVE_TIMEOUT is {given!r}: give the seconds as a whole number from 1 to {most}, such as {TIMEOUT}."
        )
    return int(given)


def join(started: Started, environment: Mapping[str, str] = os.environ) -> Processes:
    """Meet the other processes that torchrun started.

    Raises `ValueError` as `timeout` does.
    """
    seconds = timeout(environment)
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    if gpus and started.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(started.local_rank)
    store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps its store when it starts all again, with the addresses of those that are gone
    store = dist.PrefixStore(f"start {started.restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    group = dist.new_group(backend=backend, timeout=timedelta(seconds=seconds))
    return Processes(started.rank, started.count, started.local_rank, group)


def leave() -> None:
    """Part from the others, once all have come to their end; one that was lost since then has left nothing undone."""
    try:
        _meet()
    except RuntimeError as error:
        if not is_lost(error):
            raise
    dist.destroy_process_group()


def _meet() -> None:
    """Wait for all, however long that takes; `dist.barrier` would do it on a GPU where there is one."""
    dist.all_reduce(torch.zeros(1))


def is_lost(error: BaseException) -> bool:
    """Whether it says that another process is gone or silent."""
    said = ("gloo", "Gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(text in str(error) for text in said))
