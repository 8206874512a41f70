"""A forward and backward pass as one CUDA graph: launched as a whole instead of kernel by kernel."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class GraphedPass:
    """`forward_backward(images, labels)`, from the fourth batch of a shape in a row on replayed as a CUDA graph.

    A network of this size keeps a GPU waiting for Python, which launches a step's kernels one by one. `forward_backward`
    must set the gradients to None first: the recorded backward pass then writes them into memory of its own, step after step.
    It returns two tensors, of which this returns copies. What a graph cannot record (a network that reads a number from the
    device, say, or where the memory is too small for it) runs as before, with a warning. The pass must draw no random numbers on
    the device: after a recording that failed, PyTorch's generator may not work any more.
    """

    WARM_UP = 3  # calls that run as before, in which cuDNN chooses its algorithms

    def __init__(self, forward_backward: Pass) -> None:
        self.forward_backward = forward_backward
        self.capturable, self.graph = True, None
        self._forget()

    def _forget(self) -> None:
        """Give back the graph and its memory."""
        if self.graph is not None:
            torch.cuda.synchronize()  # nothing that still runs may lose its memory
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = self.images = self.labels = self.results = None
        self.calls = 0

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward_backward` returns for this batch."""
        with torch.cuda.device(images.device):
            return self._call(images, labels)

    def _call(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.capturable:
            return self.forward_backward(images, labels)
        if self.images is not None and images.shape != self.images.shape:
            self._forget()
        if self.images is None:
            self.images, self.labels, self.stream = torch.empty_like(images), torch.empty_like(labels), torch.cuda.Stream()
        self.calls += 1
        if self.calls <= self.WARM_UP:
            return self._warm_up(images, labels)
        if self.graph is None:
            self._record()
            if not self.capturable:
                return self.forward_backward(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        first, second = self.results
        return first.clone(), second.clone()

    def _warm_up(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """On a stream of its own: what autograd keeps of the default stream cannot be recorded."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            results = self.forward_backward(images, labels)
        current.wait_stream(self.stream)
        return results

    def _record(self) -> None:
        """Record one pass; it is not run."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # The first leads back on failure. Only this thread is watched: a DataLoader's may pin memory meanwhile.
            with torch.cuda.stream(current), torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.results = self.forward_backward(self.images, self.labels)
        except RuntimeError as error:
            self._forget()
            self.capturable = False
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"Training runs without a CUDA graph, which is slower: {reason}", stacklevel=2)
            return
        self.graph = graph
