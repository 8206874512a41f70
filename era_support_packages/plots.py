"""Every figure of the project: plain arrays and result values in, a `matplotlib.figure.Figure` out."""

from era_support_packages.curve_figures import class_accuracies, confusion_matrix, range_test, training_curves, training_log
from era_support_packages.figure_panels import overlay
from era_support_packages.figure_style import HEAT_COLORMAP, INK, save, show
from era_support_packages.image_figures import (
    augmented_grid,
    gradcam_comparison,
    gradcam_panels,
    image_grid,
    incorrect_predictions,
)

__all__ = [
    "HEAT_COLORMAP",
    "INK",
    "augmented_grid",
    "class_accuracies",
    "confusion_matrix",
    "gradcam_comparison",
    "gradcam_panels",
    "image_grid",
    "incorrect_predictions",
    "overlay",
    "range_test",
    "save",
    "show",
    "training_curves",
    "training_log",
]
