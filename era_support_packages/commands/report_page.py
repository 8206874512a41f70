"""The page of a report: what a colleague would ask, in the order in which they would ask it, in one file."""

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.commands import figures
from era_support_packages.datasets.image_dataset import ImageDataset, summary
from era_support_packages.evaluation.calibration import calibrate
from era_support_packages.evaluation.mistakes import class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Readable, Table, text_html
from era_support_packages.plots.style import png
from era_support_packages.runs.card import CHECKS, NOT_TESTED, cautions, opened, recipe
from era_support_packages.runs.comparison import Comparison, compare
from era_support_packages.runs.folder import Run
from era_support_packages.runs.readings import kept_readings
from era_support_packages.training.history import History

STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:62rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.25;overflow-wrap:anywhere}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid #ccc}
figure{margin:1rem 0}img{max-width:100%;height:auto}figcaption{font-size:.9rem;color:#555}
nav ul{padding-left:1.2rem}a{color:#0072b2}p{max-width:44rem;overflow-wrap:anywhere}
.warnings{border-left:4px solid #d55e00;padding:.1rem 1rem;background:#fdf3ec}
pre{overflow-x:auto;background:#f5f5f5;padding:.6rem;font-size:.85rem}
@media screen and (max-width:46rem){figure{overflow-x:auto}img{max-width:none;width:44rem}}
@media screen and (max-width:30rem){td,th{padding:.2em .35em!important}td{font-size:.92em}}
@media print{body{max-width:none;font-size:11pt}nav{display:none}h2{break-after:avoid}figure,table{break-inside:avoid}}
"""


@dataclass
class _Page:
    """Sections as they are written."""

    sections: list[tuple[str, list[str]]] = field(default_factory=list)

    def section(self, heading: str) -> None:
        self.sections.append((heading, []))

    def text(self, *paragraphs: str) -> None:
        self.sections[-1][1].extend(f"<p>{text_html(text)}</p>" for text in paragraphs if text)

    def raw(self, markup: str) -> None:
        self.sections[-1][1].append(markup)

    def table(self, *tables: Table) -> None:
        self.sections[-1][1].extend(table._repr_html_() for table in tables)

    def result(self, found: Readable) -> None:
        self.table(found.table())
        self.text(*found.reading().split("\n\n"))

    def figure(self, figure: Figure | Path, alternative: str) -> None:
        """A figure, or the file of one, with what is to be seen on it."""
        picture = figure.read_bytes() if isinstance(figure, Path) else png(figure, dpi=120)
        source = base64.b64encode(_smaller(picture)).decode()
        caption = html.escape(alternative)
        self.raw(
            f'<figure><img alt="{caption}" src="data:image/webp;base64,{source}"><figcaption>{caption}</figcaption></figure>'
        )


def page_of(folder: Path, other: Path | None = None, data_root: str | None = None) -> str:
    """The HTML page of a finished run, and of another beside it; it needs no other file and runs no code.

    Its data set is loaded once for the images. Raises `RunError` for a run that is not finished or whose data is not the same any
    more, and what loading raises.
    """
    prepared, history = opened(folder, "a report", data_root, weights=True)
    run, train, test = prepared.run, prepared.train, prepared.test
    predictions = history.final_predictions
    classifier, about = Classifier.load(folder), f"{test.title}, run {run.name}"
    page = _Page()
    _good(page, run, history, about)
    _data(page, run, train, test)
    _mistakes(page, predictions, history, about)
    _maps(page, classifier, predictions, about)
    _believed(page, run)
    if other is not None:
        _against(page, compare(folder, other, data_root=data_root))
    _again(page, run)
    return _document(f"{run.name}: {predictions.accuracy:.2f} % on {test.title}", cautions(history, test), page)


def _good(page: _Page, run: Run, history: History, about: str) -> None:
    page.section("How good is it?")
    predictions = history.final_predictions
    page.text(predictions.reading())
    flipped = run.summary().get("test_accuracy_tta")
    page.text("" if flipped is None else f"{flipped:.2f} % with the mean over each image and its mirror image.")
    page.table(predictions.table())
    page.figure(
        plots.training_log(history, f"Training log: {about}"), "rows and curves of the training: loss and accuracy by epoch"
    )
    if (kept := run.range_test()) is not None:
        figure = plots.range_test(kept[0], f"Learning-rate range test: {about}", chosen=history.config.max_lr)
        page.figure(figure, "the loss as the learning rate grows, and the rate that was taken")


def _data(page: _Page, run: Run, train: ImageDataset, test: ImageDataset) -> None:
    page.section("On what?")
    page.text(f"{test.title}: {summary(train, test)}.")
    kept = run.data()
    page.text("" if kept is None else f"Fingerprint of the data: {kept.digest}.")


def _mistakes(page: _Page, predictions: Predictions, history: History, about: str) -> None:
    page.section("Which mistakes?")
    scores, pairs = class_scores(predictions), most_confused(predictions)
    labels, calibrated = suspicious_labels(predictions), calibrate(predictions, seed=history.config.seed)
    page.text(scores.reading(), pairs.reading(), labels.reading(), calibrated.reading())
    worst = predictions.hardest(figures.MISTAKES)
    title = predictions.hardest_title(worst)
    page.figure(plots.incorrect_predictions(predictions, worst, f"{title}: {about}"), title.lower())
    page.figure(plots.confusion_matrix(predictions, f"Confusion matrix: {about}"), "how often each class is taken for each other")
    page.figure(
        plots.reliability_diagram(calibrated, f"Reliability: {about}"), "how often predictions of each confidence are right"
    )


def _maps(page: _Page, classifier: Classifier, predictions: Predictions, about: str) -> None:
    page.section("What does it look at?")
    worst = predictions.hardest(figures.MISTAKES)
    explained = classifier.explain(predictions, worst, targets="contrast")
    page.text("Bright places spoke for the class that was predicted. A map shows where, not why, and can mislead: see below.")
    page.figure(
        plots.gradcam_panels(explained, f"Grad-CAM for the predicted class: {about}"),
        "the images above, and below each the Grad-CAM maps of the layers, fine to coarse",
    )


def _believed(page: _Page, run: Run) -> None:
    """The verdicts and figures that the notebook left in the run's folder."""
    page.section("Can the maps be believed?")
    kept = kept_readings(run.folder)
    made = [name for name in CHECKS if (run.folder / name).is_file()]
    if not made:
        page.text(NOT_TESTED)
    for name in made:
        question, seen = CHECKS[name]
        page.raw(f"<h3>{html.escape(question)}</h3>")
        page.text(*kept.get(name, "").split("\n\n"))
        page.figure(run.folder / name, seen)


def _against(page: _Page, comparison: Comparison) -> None:
    first, second = (run.name for run in comparison.runs)
    page.section(f"Against {second}")
    page.result(comparison)
    for name, figure in figures.of_comparison(comparison).items():
        seen = "loss and accuracy of both by the images shown" if name == "curves.png" else "images that only one gets right"
        page.figure(figure, f"{first} and {second}: {seen}")


def _again(page: _Page, run: Run) -> None:
    page.section("How to repeat it")
    command, sentences = recipe(run)
    page.raw(f"<pre>{html.escape(command)}</pre>")
    page.text(*sentences)


def _smaller(png: bytes) -> bytes:
    """The picture as WebP, a tenth of the size; no wider than a page shows."""
    with Image.open(io.BytesIO(png)) as picture:
        shown = picture.convert("RGB")
    if shown.width > 1500:
        shown = shown.resize((1500, round(shown.height * 1500 / shown.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=85, method=4)
    return buffer.getvalue()


def _document(title: str, warnings: Iterable[str], page: _Page) -> str:
    heading = html.escape(title)
    contents = "".join(f'<li><a href="#s{i}">{html.escape(name)}</a></li>' for i, (name, _) in enumerate(page.sections))
    cautions = "".join(f"<p>{text_html(warning)}</p>" for warning in warnings)
    body = "".join(f'<h2 id="s{i}">{html.escape(name)}</h2>{"".join(parts)}' for i, (name, parts) in enumerate(page.sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{heading}</title><style>{STYLE}</style></head><body><h1>{heading}</h1>"
        f'{f"<div class=warnings>{cautions}</div>" if cautions else ""}<nav aria-label="Contents"><ul>{contents}</ul></nav>'
        f"{body}</body></html>\n"
    )
