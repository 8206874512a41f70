"""The images of a split shared out among several processes, each predicted once, and brought back into file order."""

from collections.abc import Callable

import numpy as np

from era_support_packages.system.processes import Processes


def shared_logits(count: int, batch_size: int, processes: Processes, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Logits float32 (count, C) in file order, on each of the processes.

    predict: the logits (K, C) of the images at some positions (K,). Whole batches are shared out in turn, so that each image is
    in the batch that it would be in without others: what its logits are to the last bit may depend on that.
    """
    owners = np.arange(count) // batch_size % processes.count
    own = np.flatnonzero(owners == processes.rank)
    parts = processes.gathered(predict(own) if len(own) else None)
    found = [part for part in parts if part is not None]
    logits = np.empty((count, found[0].shape[1]), dtype=found[0].dtype)
    for rank, part in enumerate(parts):
        if part is not None:
            logits[owners == rank] = part
    return logits
