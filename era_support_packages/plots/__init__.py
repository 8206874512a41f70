"""All figures: each function takes arrays or results and returns a `matplotlib.figure.Figure`."""

from era_support_packages.plots.comparison import disagreements, run_curves
from era_support_packages.plots.curves import class_accuracies, confusion_matrix, training_curves, training_log
from era_support_packages.plots.explorer import exploration
from era_support_packages.plots.explorer_panel import ExplorerPanel
from era_support_packages.plots.faithfulness import advantage_over_baselines, perturbation_curves
from era_support_packages.plots.images import (
    augmented_grid,
    gradcam_comparison,
    gradcam_panels,
    image_grid,
    incorrect_predictions,
)
from era_support_packages.plots.learning_rate import range_test
from era_support_packages.plots.mistakes import class_scores, confused_pairs, reliability_diagram, suspicious_labels, top_losses
from era_support_packages.plots.panels import overlay
from era_support_packages.plots.photo import photo_panel
from era_support_packages.plots.photo_upload import PhotoUpload
from era_support_packages.plots.sanity import sanity_curves, sanity_maps
from era_support_packages.plots.shortcut import planted_shortcut
from era_support_packages.plots.style import HEAT_COLORMAP, INK, save, show

__all__ = [
    "HEAT_COLORMAP",
    "INK",
    "ExplorerPanel",
    "PhotoUpload",
    "advantage_over_baselines",
    "augmented_grid",
    "class_accuracies",
    "class_scores",
    "confused_pairs",
    "confusion_matrix",
    "disagreements",
    "exploration",
    "gradcam_comparison",
    "gradcam_panels",
    "image_grid",
    "incorrect_predictions",
    "overlay",
    "perturbation_curves",
    "photo_panel",
    "planted_shortcut",
    "range_test",
    "reliability_diagram",
    "run_curves",
    "sanity_curves",
    "sanity_maps",
    "save",
    "show",
    "suspicious_labels",
    "top_losses",
    "training_curves",
    "training_log",
]
