"""The four figures of a run, as the notebook draws them, into its folder."""

from pathlib import Path

from era_support_packages import plots
from era_support_packages.runs.preparation import PreparedRun
from era_support_packages.training.history import Trained

MISTAKES = 10


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
