"""A model card: what a finished run is, on what, how good, and whether its heat maps were found to be believable."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

from era_support_packages.datasets.image_dataset import ImageDataset, summary
from era_support_packages.evaluation.calibration import calibrate
from era_support_packages.evaluation.intervals import share_interval
from era_support_packages.evaluation.mistakes import class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import text_markdown
from era_support_packages.runs.entry import COMPLETE, TRAINING, read_entry, values_text
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.preparation import PreparedRun, shown
from era_support_packages.runs.readings import kept_readings
from era_support_packages.runs.repeating import needed_values
from era_support_packages.training.checkpoint import PUT_BACK, Checkpoint
from era_support_packages.training.cost import duration
from era_support_packages.training.history import History

FEW_IMAGES = 1000  # of the test split: below it the accuracy is known to some points only
CHECKS = {  # figure in a run's folder: its name, and what is to be seen
    "faithfulness.png": ("Do the marked pixels matter?", "scores of each method and layer against maps that know nothing"),
    "sanity_check.png": ("Do the maps depend on what was learned?", "how much of the maps is left as weights are drawn anew"),
    "planted_shortcut.png": ("Would they find a planted cause?", "hits of each method and layer on a mark that was planted"),
}
NOT_TESTED = (
    "This was not tested for this run. The notebook's last sections do it: open the run there with finished_run. They leave out "
    'what would take longer than the training took: set checks to "full" there, or give check_seconds, to have it made.'
)
_PICTURES = {
    "training_log.png": "rows and curves of the training: loss and accuracy by epoch",
    "confusion_matrix.png": "how often each class is taken for each other",
    "incorrect_classification.png": "the wrong predictions with the highest loss",
    "gradCAM.png": "wrong predictions, and below each the Grad-CAM maps of the layers, fine to coarse",
    "reliability.png": "how often predictions of each confidence are right",
}


def opened(folder: Path, what: str, data_root: str | None = None, weights: bool = False) -> tuple[PreparedRun, History]:
    """A finished run with its data, and its history with the predictions it ended with; `what` is made of it ("a report").

    weights: whether its weights are needed too. Raises `RunError` for a run that is not finished, lacks them, or whose data is
    not the same any more, and what loading raises.
    """
    entry = read_entry(folder)
    if entry.problem:
        raise RunError(
            f"{folder} cannot be used for {what}: {entry.problem.rstrip('.')}. Put the file back as it was, or train the run "
            "again in a new folder."
        )
    if entry.state != COMPLETE:
        way_out = "Wait until it is" if entry.state == TRAINING else "Run it again with the same values to have it"
        raise RunError(f"{folder} is {entry.state}: {what} is of a finished run. {way_out} finished.")
    checkpoint = Checkpoint.load(folder / "checkpoint.pt", PUT_BACK)
    if weights and not checkpoint.model:
        raise RunError(f"{folder} has no weights any more, so that there are no heat maps to report; compare it instead.")
    if not checkpoint.config.final_test:
        raise RunError(f"{folder} was never tested (final_test=False): {what} is of a run that was; compare it instead.")
    if checkpoint.classifier is not None and checkpoint.classifier["model"] is None:
        raise RunError(
            f"{folder} holds a network that no name makes, such as one that was changed after it was built, so that {what} would "
            "tell of another one; compare it instead."
        )
    prepared = shown(Run.open(folder), checkpoint, data_root, {}, _silent)
    test = prepared.test
    assert checkpoint.logits is not None  # it is complete
    predictions = Predictions(checkpoint.logits.numpy(), test.labels, test.classes, test.images)
    return prepared, History(checkpoint.records, checkpoint.config, predictions, checkpoint.planned)


def recipe(run: Run) -> tuple[str, tuple[str, ...]]:
    """The command that repeats a finished run, and sentences on its values, its cost, and the versions it was made with."""
    config, said = run.config(), run.summary()
    given = needed_values(config)
    words = [f"--preset {config.preset_name} --dataset {_word(config.dataset)} --seed {config.seed}"]
    words += [f"--{name.replace('_', '-')} {_word(value)}" for name, value in given.items()]
    if (processes := said.get("processes", 1)) > 1:  # with batch norm their number is part of the result
        words.append(f"--devices {processes}")
    return " ".join(["python -m era_support_packages train", *words]), (
        f"Values that are given, or that another machine might choose otherwise: {values_text(given)}.",
        f"It took {duration(said['seconds'])} on {said['hardware']}, for {said['pflops']:.4g} PFLOP.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in said['versions'].items())}.",
    )


def cautions(history: History, test: ImageDataset) -> list[str]:
    """What a reader must know before the first number."""
    found = []
    if history.config.dataset == "digits":
        found.append("These are handwritten digits: the figures say nothing about photos.")
    if len(test) < FEW_IMAGES:
        known, count = share_interval(history.final_predictions.correct, len(test)), len(test)
        found.append(
            f"The test split has only {count} image{'s' * (count != 1)}: with 95 % confidence the accuracy lies between "
            f"{100 * known.low:.1f} and {100 * known.high:.1f} %."
        )
    if len(history.records) > 1 and history.watched == "test":
        found.append("The test split was also looked at between the epochs: whoever chose values by it has made it look better.")
    return found


def model_card(folder: str | Path, file: str | Path | None = None, data_root: str | None = None) -> str:
    """The model card of a finished run, as Markdown: data, recipe, figures, accuracy by class, confusions, and what the checks of
    the notebook said of its heat maps.

    file: where it will lie, for the links to the run's pictures; None is README.md in the run's folder. Its data set is loaded
    once. Raises `RunError` for a run that is not finished or whose data is not the same any more, and what loading raises.

    >>> from era_support_packages.runs import model_card, prepare, train_prepared
    >>> prepared = prepare("smoke", dataset="digits", train_images=8, batch_size=4, resolutions=((8, 1.0),), run_name="first")
    >>> _ = train_prepared(prepared, report=lambda line: None)
    >>> print(model_card("runs/first").splitlines()[0])
    # first: a ResNet18 for handwritten digits (embedded default, not CIFAR-10)
    """
    folder = Path(folder)
    prepared, history = opened(folder, "a model card", data_root)
    run, predictions = prepared.run, history.final_predictions
    card = [f"# {_said(f'{run.name}: a {history.config.model} for {prepared.test.title}')}", _said(predictions.reading())]
    card += [f"> {_said(warning)}" for warning in cautions(history, prepared.test)]
    card += [*_network(prepared, history), *_results(run, history), *_confusions(predictions, history)]
    card += _believed(folder)
    card += _pictures(folder, Path(file).parent if file is not None else folder)
    return "\n\n".join(card) + "\n"


def _network(prepared: PreparedRun, history: History) -> list[str]:
    run, train, test = prepared.run, prepared.train, prepared.test
    pixels, kept = history.resolution, run.data()
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (train.mean, train.std))
    command, sentences = recipe(run)
    load = f'from era_support_packages import Classifier\n\nClassifier.load({str(run.folder)!r}).predict("photo.jpg").reading()'
    return [
        "## What it takes and says",
        f"An RGB image of {pixels} x {pixels} px, normalized by mean ({mean}) and standard deviation ({std}); one logit for each "
        f"of {len(train.classes)} classes: {_said(', '.join(train.classes))}. In Python, where images are resized and normalized "
        "by themselves:",
        f"```python\n{load}\n```",
        "## Data",
        _said(f"{test.title}: {summary(train, test)}." + ("" if kept is None else f" Fingerprint: {kept.digest}.")),
        "## Recipe",
        f"```\n{command}\n```",
        *map(_said, sentences),
    ]


def _results(run: Run, history: History) -> list[str]:
    predictions = history.final_predictions
    share, flipped = share_interval(predictions.correct, len(predictions)), run.summary().get("test_accuracy_tta")
    scores = class_scores(predictions)
    return [
        "## How good it is",
        f"{predictions.accuracy:.2f} % of {len(predictions):,} {history.judged} images are right; with 95 % confidence it is "
        f"{100 * share.low:.2f} to {100 * share.high:.2f} % of such images."
        + ("" if flipped is None else f" {flipped:.2f} % with the mean over each image and its mirror image."),
        "Recall is the accuracy of a class: the share of its images that is given it.",
        scores.table().markdown(),
        _said(scores.reading()),
    ]


def _confusions(predictions: Predictions, history: History) -> list[str]:
    pairs = most_confused(predictions)
    readings = (suspicious_labels(predictions).reading(), calibrate(predictions, seed=history.config.seed).reading())
    tables = [pairs.table().markdown()] if pairs.pairs else []
    return ["## What it confuses", _said(pairs.reading()), *tables, *map(_said, readings)]


def _believed(folder: Path) -> list[str]:
    """The verdicts that the notebook left in the run's folder."""
    kept = kept_readings(folder)
    parts = ["## Can its heat maps be believed?"]
    for name, (question, _) in CHECKS.items():
        if kept.get(name) and (folder / name).is_file():
            parts += [f"**{question}**", *map(_said, kept[name].split("\n\n"))]
    return parts if len(parts) > 1 else [*parts, _said(NOT_TESTED)]


def _pictures(folder: Path, beside: Path) -> list[str]:
    there = {**_PICTURES, **{name: seen for name, (_, seen) in CHECKS.items()}}
    there = {name: seen for name, seen in there.items() if (folder / name).is_file()}
    base = Path(os.path.relpath(folder, beside)).as_posix()
    places = {name: name if base == "." else f"<{base}/{name}>" for name in there}  # a folder's name may have spaces
    shown = [f"![{seen}]({places[name]})" for name, seen in there.items()]
    return ["## Figures", *shown] if shown else []


def _word(value: Any) -> str:
    """A value as a shell takes it."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def _said(text: str) -> str:
    return text_markdown(text)


def _silent(line: str) -> None:
    """A card and a page say themselves what is said while data is loaded."""
