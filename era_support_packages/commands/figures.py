"""The figures that commands draw: those of a run, as the notebook has them, and those of runs beside each other."""

from pathlib import Path

from matplotlib.figure import Figure

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.runs.comparison import Comparison
from era_support_packages.runs.preparation import PreparedRun
from era_support_packages.training.history import Trained

MISTAKES = 10  # shown and explained
OTHERWISE = 6  # images shown that only one of two runs gets right


def draw(prepared: PreparedRun, trained: Trained) -> list[Path]:
    """The range test where one was made, the log, the wrong predictions, and their Grad-CAM maps; returns the files."""
    folder, history = prepared.run.folder, trained.history
    about = f"{prepared.train.title}, run {prepared.run.name}"
    figures = {"training_log.png": plots.training_log(history, f"Training log: {about}")}
    if (kept := prepared.run.range_test()) is not None:
        figures["lr_finder.png"] = plots.range_test(kept[0], f"Learning-rate range test: {about}", chosen=history.config.max_lr)
    predictions = history.final_predictions
    worst = predictions.hardest(MISTAKES)
    title = f"{predictions.hardest_title(worst)}: {about}"
    figures["incorrect_classification.png"] = plots.incorrect_predictions(predictions, worst, title)
    explained = trained.classifier.explain(predictions, worst, targets="contrast")
    figures["gradCAM.png"] = plots.gradcam_panels(explained, f"Grad-CAM for the predicted class: {about}")
    return [plots.save(figure, folder / name) for name, figure in figures.items()]


def of_comparison(comparison: Comparison) -> dict[str, Figure]:
    """The curves, and for two runs the images that only one gets right, by file name.

    Both networks are loaded for their maps; where the weights of one were removed, or no name makes it, only curves are drawn.
    """
    names = " and ".join(run.name for run in comparison.runs) if len(comparison.runs) <= 3 else f"{len(comparison.runs)} runs"
    figures = {"curves.png": plots.run_curves(comparison, f"{names}: what was learned when")}
    if len(comparison.runs) != 2 or comparison.test is None or not all(run.has_weights for run in comparison.runs):
        return figures
    paired = comparison.paired()
    networks = [Classifier.load(run.entry.folder) for run in comparison.runs]
    for winner, loser, indices in (
        (paired.first, paired.second, paired.only_first[:OTHERWISE]),
        (paired.second, paired.first, paired.only_second[:OTHERWISE]),
    ):
        if len(indices):
            explanations = networks[0].explain(paired.of_first, indices), networks[1].explain(paired.of_second, indices)
            title = f"{winner} is right and {loser} is not"
            figures[f"only_{winner}.png"] = plots.disagreements(paired, indices, explanations, title)
    return figures
