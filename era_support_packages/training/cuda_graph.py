"""A training step as one CUDA graph: launched as a whole instead of kernel by kernel."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class GraphedPass:
    """`forward_backward(images, labels)`, from the fourth batch of a shape in a row on replayed as a CUDA graph.

    A network of this size keeps a GPU waiting for Python, which launches a step's kernels one by one. `forward_backward`, which
    may also make the update, must set the gradients to None first: the recorded backward pass then writes them into memory of
    its own, step after step. What else it reads and writes (weights, an optimizer's state) must stay where it is in memory.
    It returns two tensors, of which this returns copies. What a graph cannot record (a network that reads a number from the
    device, say, or where the memory is too small for it) runs as before, with a warning. The pass must draw no random numbers on
    the device: after a recording that failed, PyTorch's generator may not work any more.
    """

    WARM_UP = 3  # calls that run as before, in which cuDNN chooses its algorithms

    def __init__(self, forward_backward: Pass) -> None:
        self.forward_backward = forward_backward
        self.capturable = True
        self.buffers: _Buffers | None = None
        self.recorded: tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]] | None = None
        self.calls = 0

    def _forget(self) -> None:
        """Give back the graph and its memory."""
        if self.recorded is not None:
            torch.cuda.synchronize()  # nothing that still runs may lose its memory
        self.recorded = self.buffers = None
        self.calls = 0

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward_backward` returns for this batch."""
        with torch.cuda.device(images.device):
            return self._call(images, labels)

    def _call(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.capturable:
            return self.forward_backward(images, labels)
        if self.buffers is not None and images.shape != self.buffers.images.shape:
            self._forget()
        if self.buffers is None:
            self.buffers = _Buffers(torch.empty_like(images), torch.empty_like(labels), torch.cuda.Stream())
        self.calls += 1
        if self.calls <= self.WARM_UP:
            return self._warm_up(self.buffers.stream, images, labels)
        if self.recorded is None:
            self.recorded = self._record(self.buffers)
        if self.recorded is None:
            return self.forward_backward(images, labels)
        self.buffers.images.copy_(images)
        self.buffers.labels.copy_(labels)
        graph, (first, second) = self.recorded
        graph.replay()
        return first.clone(), second.clone()

    def _warm_up(self, stream: torch.cuda.Stream, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """On a stream of its own: what autograd keeps of the default stream cannot be recorded."""
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results = self.forward_backward(images, labels)
        current.wait_stream(stream)
        return results

    def _record(self, buffers: "_Buffers") -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]] | None:
        """Record one pass, which is not run; None, with a warning, where it cannot be recorded."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # The first leads back on failure. Only this thread is watched: a DataLoader's may pin memory meanwhile.
            with (
                torch.cuda.stream(current),
                torch.cuda.graph(graph, stream=buffers.stream, capture_error_mode="thread_local"),
            ):
                results = self.forward_backward(buffers.images, buffers.labels)
        except RuntimeError as error:
            self._forget()
            self.capturable = False
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"Training runs without a CUDA graph, which is slower: {reason}", stacklevel=2)
            return None
        return graph, results


@dataclass(frozen=True)
class _Buffers:
    """What a graph reads, always at the same place in memory, and the stream it is recorded on."""

    images: Tensor
    labels: Tensor
    stream: torch.cuda.Stream
