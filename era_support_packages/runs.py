"""A run's folder and what is written into it."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from era_support_packages.atomic_file import write_atomically
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import describe, resolve_device, versions
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.predictions import Predictions, predict
from era_support_packages.run_cost import duration, training_flops
from era_support_packages.training import EpochRecord, History, fit, log_header, log_row, resolve

METRICS = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")


@dataclass(frozen=True)
class Run:
    """The folder of one run: config.json, metrics.csv, summary.json, checkpoint.pt and the figures."""

    folder: Path

    @classmethod
    def create(cls, config: TrainingConfig, dataset: str) -> "Run":
        """A new folder below `output_dir` with the configuration in it; one that is already there is left alone.

        The name is `run_name` or follows from the configuration; a name that is taken gets "-2", "-3", and so on.
        """
        name = config.run_name or config.default_run_name(dataset)
        root = Path(config.output_dir)
        root.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = root / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
        run = cls(folder)
        run.write_config(config)
        return run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.folder / "summary.json").is_file()

    def listing(self) -> str:
        """Where the files are: the folder, then one line a file with its size."""
        files = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        width = max((len(path.name) for path in files), default=0)
        lines = [f"  {path.name:<{width}}  {max(1, path.stat().st_size // 1024):>6} KiB" for path in files]
        return "\n".join([f"Everything is in {self.folder}", *lines])

    def write_config(self, config: TrainingConfig) -> None:
        """config.json: the configuration."""
        self.write_json("config.json", config.to_dict())

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """A JSON file in the run's folder."""
        write_atomically(self.folder / name, (json.dumps(values, indent=2) + "\n").encode())

    def write_metrics(self, records: Sequence[EpochRecord]) -> None:
        """metrics.csv: one row an epoch, accuracies in percent."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(METRICS)
        writer.writerows([getattr(record, name) for name in METRICS] for record in records)
        write_atomically(self.folder / "metrics.csv", text.getvalue().encode())

    def save_checkpoint(
        self, model: nn.Module, config: TrainingConfig, records: Sequence[EpochRecord], predictions: Predictions
    ) -> None:
        """checkpoint.pt: weights on the CPU, configuration, rows and test logits, as tensors and plain values only."""
        buffer = io.BytesIO()
        torch.save(
            {
                "model": {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
                "config": config.to_dict(),
                "records": [dataclasses.asdict(record) for record in records],
                "logits": torch.from_numpy(predictions.logits),
            },
            buffer,
        )
        write_atomically(self.folder / "checkpoint.pt", buffer.getvalue())

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """A run that is already there. Raises `FileNotFoundError` where the folder holds no finished run."""
        run = cls(Path(folder))
        for name in ("checkpoint.pt", "summary.json"):
            if not (run.folder / name).is_file():
                raise FileNotFoundError(
                    f"{run.folder} is not the folder of a finished run: it has no {name}; give one that has, or train a new one."
                )
        return run

    def config(self) -> TrainingConfig:
        """The configuration that the run was made with, everything "auto" resolved."""
        return TrainingConfig.from_dict(json.loads((self.folder / "config.json").read_text()))

    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""
        return json.loads((self.folder / "summary.json").read_text())

    def load(self, model: nn.Module, test: ImageDataset) -> History:
        """Put the run's weights into the model; returns its history with the predictions it ended with.

        Raises `ValueError` where the checkpoint belongs to another network or another test split.
        """
        content = torch.load(self.folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        if len(content["logits"]) != len(test) or content["logits"].shape[1] != len(test.classes):
            raise ValueError(
                f"{self.folder} was tested on {len(content['logits'])} images of {content['logits'].shape[1]} classes, but the "
                f"data set has {len(test)} of {len(test.classes)}; load the data set of its config.json."
            )
        weights, own = content["model"], model.state_dict()
        if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
            raise ValueError(f"{self.folder} holds the weights of another network; build the model of its config.json.")
        model.load_state_dict(weights)
        return History(
            tuple(EpochRecord(**record) for record in content["records"]),
            TrainingConfig.from_dict(content["config"]),
            Predictions(content["logits"].numpy(), test.labels, test.classes),
        )

    def write_summary(
        self,
        records: Sequence[EpochRecord],
        config: TrainingConfig,
        dataset: str,
        flops: int,
        test_accuracy_tta: float | None = None,
    ) -> dict[str, Any]:
        """summary.json: what was run, where, and what came out; accuracies in percent at the last epoch, time in seconds."""
        values = {
            "dataset": dataset,
            "preset": config.preset_name,
            "epochs": len(records),
            "test_accuracy": records[-1].test_accuracy,
            "test_accuracy_tta": test_accuracy_tta,
            "pflops": flops / 1e15,
            "seconds": sum(record.seconds for record in records),
            "seed": config.seed,
            "versions": versions(),
            "hardware": describe(torch.device(config.device)),
        }
        self.write_json("summary.json", values)
        return values


def train_and_record(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    config: TrainingConfig,
    run: Run,
    range_test_batches: int = 0,
    report: Callable[[str], None] = print,
) -> History:
    """`training.fit`, with the run's folder kept up to date after each epoch and completed at the end.

    `range_test_batches` is the length of the range test that `max_lr` came from, for the count of operations.
    """
    config = resolve(config, train)
    run.write_config(config)
    records: list[EpochRecord] = []

    def keep(record: EpochRecord) -> None:
        records.append(record)
        run.write_metrics(records)

    history = fit(model, train, test, config, report, keep)
    run.save_checkpoint(model, config, history.records, history.predictions)
    flipped = None
    if config.test_time_flip:
        resolution = config.resolutions[-1][0]
        flipped = predict(model, test, resolve_device(config.device), config.precision, resolution, flip=True).accuracy
    flops = training_flops(model, config, len(train), range_test_batches)
    run.write_summary(history.records, config, train.name, flops, flipped)
    return history


def train_or_show(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    config: TrainingConfig,
    run: Run,
    range_test_batches: int = 0,
    report: Callable[[str], None] = print,
) -> History:
    """`train_and_record`; for a run that is finished already, load its weights instead and report its log, saying so."""
    if not run.finished:
        return train_and_record(model, train, test, config, run, range_test_batches, report)
    history = run.load(model, test)
    summary = run.summary()
    report(f"Not trained now: this is the run {run.name}, trained in {duration(summary['seconds'])} on {summary['hardware']}.")
    report("\n".join([log_header(), *map(log_row, history.records)]))
    return history
