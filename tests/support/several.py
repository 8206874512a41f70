"""Several gloo processes on this machine, each of which calls a function: what torchrun starts, without its launcher."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from era_support_packages.system.processes import Processes, join, leave
from era_support_packages.system.torchrun import started_by_torchrun


def in_processes(count: int, function: Callable[..., Any], *arguments: Any, seconds: int = 200) -> list[Any]:
    """What `function(processes, *arguments)` returns in each; an error is returned as "NAME: its message", None by one that died.

    seconds: how long each waits for the others; a busy machine is slow.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["several_jobs", "torch._dynamo"])  # the second is what DistributedDataParallel imports
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    starts = [(function, arguments, rank, count, port, seconds, pipes[rank][1]) for rank in range(count)]
    running = [context.Process(target=_worker, args=start) for start in starts]
    for process in running:
        process.start()
    try:
        found = []
        for receiving, sending in pipes:
            sending.close()
            assert receiving.poll(500), "a process does not answer"
            try:
                found.append(receiving.recv())
            except EOFError:
                found.append(None)
    finally:
        for process in running:
            process.join(10)
            process.kill()
    return found


def _worker(
    function: Callable[..., Any], arguments: tuple[Any, ...], rank: int, count: int, port: int, seconds: int, result: Connection
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TQDM_DISABLE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    os.environ["ERA_COLLECTIVE_TIMEOUT"] = str(seconds)
    started = started_by_torchrun()
    processes = Processes() if started is None else join(started)
    try:
        value = function(processes, *arguments)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        result.send(f"{type(error).__name__}: {error}")
        os._exit(1)
    result.send(value)
    if count > 1:
        leave()
