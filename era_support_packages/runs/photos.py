"""A person's own photos and the network of a run: what it says of each, how sure it is, and what it looks at."""

import contextlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.fitting import fitted
from era_support_packages.evaluation.cautions import told_once
from era_support_packages.gradcam.result import Explanation

TOP = 3  # classes named of each photo
Top = tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class ExplainedPhoto:
    """What a network says of one photo, and the maps of what it looks at in it; `plots.photo_panel` draws it.

    >>> import numpy as np
    >>> from era_support_packages import Classifier, ResNet18, load
    >>> from era_support_packages.runs import explain_photo
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> found = explain_photo(classifier, np.full((60, 80, 3), 128, np.uint8), layers=["layer4"])
    >>> found.explanation.layers, len(found.top), found.temperature
    (('layer4',), 3, None)
    """

    explanation: Explanation
    top: Top
    """the likeliest classes with their probabilities, the likeliest first"""
    temperature: float | None
    """by which the logits were divided before; None where the probabilities are as they come, uncalibrated"""


@told_once
def explain_photo(
    classifier: Classifier,
    photo: np.ndarray,
    *,
    temperature: float | None = None,
    target: int | None = None,
    layers: Sequence[str] | None = None,
    method: str = "gradcam",
) -> ExplainedPhoto:
    """Explain a photo, uint8 (H, W, 3) of any size, for the predicted class or for class number `target`.

    temperature: `kept_temperature` of the network's run; layers, method: as for `Classifier.explain`, which says what is raised.

    >>> import numpy as np
    >>> from era_support_packages import Classifier, ResNet18, load
    >>> from era_support_packages.runs import explain_photo
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> found = explain_photo(classifier, np.full((60, 80, 3), 128, np.uint8), layers=["layer4"], target=7)
    >>> int(found.explanation.targets[0, 0])
    7
    """
    seen = fitted(photo, classifier.fitting)
    said = classifier.predict(seen)
    targets: Any = "predicted" if target is None else [target]
    explained = classifier.explain(seen, targets=targets, layers=layers, method=method)
    return ExplainedPhoto(explained, top_classes(said.logits[0], classifier.classes, temperature), temperature)


def top_classes(logits: np.ndarray, classes: Sequence[str], temperature: float | None = None) -> Top:
    """The likeliest classes of one image with their probabilities, from its logits (C,), divided by a temperature if any."""
    probabilities = softmax(logits.astype(np.float64) / (temperature or 1.0))
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return tuple((classes[index], float(probabilities[index])) for index in order)


def kept_temperature(path: str | os.PathLike[str]) -> float | None:
    """The temperature that a run kept, by its folder or its checkpoint.pt: fitted on the images that it was judged on.

    None for a run that kept none, and for any other file.

    >>> from era_support_packages.runs import kept_temperature
    >>> kept_temperature("network.pt") is None
    True
    """
    place = Path(path)
    folder = place.parent if place.name == "checkpoint.pt" else place
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kept = json.loads((folder / "summary.json").read_text(encoding="utf-8")).get("temperature")
        if isinstance(kept, int | float) and not isinstance(kept, bool) and math.isfinite(kept) and kept > 0:
            return float(kept)
    return None


def how_sure(temperature: float | None) -> str:
    """What the confidences are worth, in a sentence."""
    if temperature is None:
        return "The confidences are uncalibrated: no temperature is kept with this network."
    return f"The confidences are calibrated: logits are divided by {temperature:.2f}, the temperature that the run kept."
