"""Threads and algorithms of PyTorch, as a configuration asks for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from era_support_packages.datasets.workers import lost_workers
from era_support_packages.training.config import PreparedConfig


@contextmanager
def use_resources(config: PreparedConfig) -> Iterator[None]:
    """While it lasts, PyTorch computes with the threads and the algorithms that the configuration asks for.

    On a GPU cuDNN takes the algorithms that it holds for the fastest, or with `deterministic` only such as give the same bits:
    to try them all takes seconds at each resolution, more than it saves even in a run of minutes (`benchmarks/README.md`).
    Raises `WorkerLostError` where one of its workers ends meanwhile.
    """
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if config.threads != threads:  # to set them, even to the same number, is not free
            torch.set_num_threads(config.threads)
        torch.backends.cudnn.benchmark = False
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it before its first product
            torch.use_deterministic_algorithms(True)
        with lost_workers(config.workers):
            yield
    finally:
        if config.threads != threads:
            torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        if config.deterministic:  # the call imports the compiler's settings, which takes a second
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
