"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file of tensors and plain values."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.image_dataset import ImageDataset, data_fingerprint
from era_support_packages.models.catalog import difference, differing_weight
from era_support_packages.models.classifier_file import FORMAT, WITHOUT_CLASSIFIER, WITHOUT_WEIGHTS
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.tensor_file import TensorFileError, read_tensors, write_tensors
from era_support_packages.training.asked import NOT_IN_THE_NAME
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.history import EpochRecord
from era_support_packages.training.resolution import stored_config

TRAIN_ANEW = "the file is left as it is: move it away, or set resume=False to train in a new folder."
PUT_BACK = "put back a copy of the file, or train the run again with the same values in a new folder."
"""what to do where a finished run is looked at, and nothing is trained"""
_FREE = (*NOT_IN_THE_NAME, "precision", "dataset")  # may change while a run goes on, as on another machine


class CheckpointError(PlainError, ValueError):
    """A checkpoint that cannot be used; the message says why and what to do. The file is left as it is."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after its last complete epoch.

    model: the network's state_dict. optimizer, scheduler, scaler: their state_dicts, None once the run is complete.
    records: the rows so far. logits: float32 (N, C) of the whole test split, or with `final_test=False` of the validation split;
    None before the last epoch. random_state: the global generators by name ("cpu", "cuda"; "cpu 1" is that of a second process),
    uint8; order and augmentation need none, they follow from the seed, the pass and the image's index. classifier: what its
    network needs to be used, as `Classifier.description` has it; None in a file of format 2, which did not keep it. data: the
    fingerprint of what the run is trained and tested on, as `DataFingerprint.to_dict` has it; None in a file that was written
    before it was kept. processes: how many trained it together. average: the mean of the last weights so far, where the run ends
    with one.

    >>> from pathlib import Path
    >>> from torch import nn
    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import Checkpoint, fit, resolve
    >>> train, test = load("digits")
    >>> config = resolve(TrainingConfig.preset("smoke"), train)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))  # of images of 16 px
    >>> file = Path("checkpoint.pt")
    >>> _ = fit(network, train, test, config, report=lambda line: None, keep=lambda state: state.save(file))
    >>> Checkpoint.load(file).complete
    True
    """

    config: ResolvedConfig
    planned: int
    records: tuple[EpochRecord, ...]
    model: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    scaler: dict[str, Any] | None
    random_state: dict[str, Tensor]
    logits: Tensor | None
    classifier: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    processes: int = 1
    average: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether the run reached its last epoch."""
        return self.logits is not None

    def save(self, path: Path) -> None:
        """Write the checkpoint as a whole: until it is on the disk, the file of before stays."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content |= {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "records": [record.to_dict() for record in self.records],
            "model": {name: value.detach().cpu().contiguous() for name, value in self.model.items()},
        }
        write_tensors(path, content)

    @classmethod
    def load(cls, path: Path, way_out: str = TRAIN_ANEW) -> "Checkpoint":
        """Read a checkpoint; nothing in it is executed (`weights_only=True`).

        Raises `CheckpointError` for a file that is empty, cut short, of another kind, or of another version; `way_out` is what to
        do then.
        """
        try:
            content = read_tensors(path)
        except TensorFileError as error:
            raise CheckpointError(f"{error}; {way_out}") from None
        try:
            if content["format"] not in (FORMAT, WITHOUT_CLASSIFIER):
                problem = f"has format {content['format']!r}, and this version reads formats {WITHOUT_CLASSIFIER} and {FORMAT}"
                raise CheckpointError(f"{path} {problem}; {way_out}")
            values = {
                field.name: content[field.name] for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING
            }
            values |= {name: content.get(name) for name in ("classifier", "data", "average")}
            values["processes"] = content.get("processes", 1)
            if values["data"] is not None:
                DataFingerprint.from_dict(values["data"])
            values["config"] = stored_config(values["config"]).resolved()
            values["records"] = tuple(EpochRecord(**record) for record in values["records"])
            if not all(isinstance(value, Tensor) for value in values["model"].values()):
                raise TypeError
            if not all(isinstance(values[name], int) for name in ("planned", "processes")):
                raise TypeError
            if not isinstance(values["logits"], Tensor | None):
                raise TypeError
            if not all(isinstance(values[name], dict | None) for name in ("average", "classifier")):
                raise TypeError
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError):
            raise CheckpointError(f"{path} is not a checkpoint of this package; {way_out}") from None
        return cls(**values)

    def check_network(self, model: nn.Module, path: Path | str) -> None:
        """Raise `CheckpointError` where the weights belong to another network; `path` is for the message.

        Of one that `build_model` makes, and of one that it does not, the file knows which they belong to.
        """
        if not self.model:
            raise CheckpointError(f"{path} holds no weights any more; {WITHOUT_WEIGHTS}")
        own = model.state_dict()
        if {name: value.shape for name, value in self.model.items()} != {name: value.shape for name, value in own.items()}:
            raise CheckpointError(f"{path} holds the weights of another network; build the model of its config.json.")
        name, told = self.config.model, self.classifier or {}
        if not {"model", "classes"} <= told.keys() or differing_weight(model, name, len(told["classes"])):
            return
        sign = difference(model, name, len(told["classes"]), self.config.resolutions[-1][0])  # where its name was looked for
        if told["model"] is None and sign is None:
            raise CheckpointError(
                f"{path} holds the weights of a network that was changed after it was built as a {name}: give one that is "
                "changed in the same way, or set resume=False to train in a new folder."
            )
        if told["model"] is not None and sign is not None:
            raise CheckpointError(
                f"{path} holds the weights of a {name}, and this network is none, as {sign} shows: build the model of its "
                "config.json, or set resume=False to train in a new folder."
            )

    def check_run(self, config: ResolvedConfig, train: ImageDataset, test: ImageDataset, path: Path | None = None) -> None:
        """Raise `CheckpointError` where a run of this configuration, or on these images, is another one than it was.

        path: of the file, for the message; None for one that is given as `resume`.
        """
        whose = "resume=" if path is None else path
        before, now = (json.loads(json.dumps(values.to_dict())) for values in (self.config, config))  # 1 and 1.0 are the same
        if found := [
            f"{name} {before[name]!r} (here {now[name]!r})" for name in now if name not in _FREE and before[name] != now[name]
        ]:
            way_out = "which is resume.config, or train from the start" if path is None else "or set resume=False to train anew"
            raise CheckpointError(f"{whose} is a run of another configuration: {', '.join(found)}. Give its own, {way_out}.")
        kept = None if self.data is None else DataFingerprint.from_dict(self.data)
        if kept is not None and (changes := data_fingerprint(train, test).changes(kept)):
            raise CheckpointError(
                f"{whose} is a run on other images than these: {changes}. Give the splits that it began with, or train from the "
                "start."
            )


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The global generators that training on the device draws from, by name."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Set the global generators to what `random_state` found; a generator that is not there is left alone."""
    if "cpu" in state:
        torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
