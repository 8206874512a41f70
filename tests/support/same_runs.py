"""Whether two runs came to the same end."""

import dataclasses

import torch

from era_support_packages.training.checkpoint import Checkpoint


def differences(one: Checkpoint, other: Checkpoint) -> list[str]:
    """What differs between two finished runs, bit by bit, seconds aside."""
    names = [name for name in one.model if not torch.equal(one.model[name], other.model[name])]
    rows = [
        f"epoch {row.epoch}"
        for row, same in zip(one.records, other.records, strict=True)
        if dataclasses.replace(row, seconds=0) != dataclasses.replace(same, seconds=0)
    ]
    return names + rows + ([] if torch.equal(one.logits, other.logits) else ["predictions"])
