"""One image under every method: the maps as values, and a panel to turn the knobs without running cells again."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from era_support_packages import gradcam
from era_support_packages.batches import normalize_images, unnormalize
from era_support_packages.figure_panels import overlay
from era_support_packages.figure_style import percent_text, picture_bundle
from era_support_packages.gradcam_arguments import layer_names
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.predictions import Predictions

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PANEL_PIXELS = 288  # side of the panel's picture on the screen


@dataclass(frozen=True, eq=False)
class Exploration:
    """The class activation maps of one image for one class, by every method at every layer."""

    image: np.ndarray
    """uint8 (H, W, 3), not normalised"""
    class_id: int
    confidence: float
    """softmax probability of the class, in [0, 1]"""
    explanations: tuple[gradcam.Explanation, ...]
    """one for each method, each of one image and one class"""


def explore(
    model: nn.Module,
    dataset: ImageDataset,
    index: int,
    class_id: int,
    resolution: int | None = None,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> Exploration:
    """Explain image number `index` for a class by every method, seen at `resolution` px (None keeps the image's size).

    `methods` are keys of `gradcam.METHODS`, None for all; `layers` as for `gradcam.explain`. Score-CAM and Ablation-CAM take a
    forward pass for each channel, `cost` says how many. Raises `ValueError` for an index, class, layer or method that is not
    there, before anything is computed.
    """
    methods = tuple(gradcam.METHODS) if methods is None else tuple(methods)
    for method in methods:
        gradcam.check_method(method)
    _check_index(index, len(dataset), "index", "images")
    _check_index(class_id, len(dataset.classes), "class_id", "classes")
    images = normalize_images(dataset, np.array([index]), resolution)

    def one(method: str) -> gradcam.Explanation:
        return gradcam.explain(model, images, [class_id], _layers_of(method, layers), method)

    explanations = tuple(map(one, methods))
    pixels = unnormalize(images, dataset.mean, dataset.std)[0]
    return Exploration(pixels, class_id, float(explanations[0].confidences[0, 0]), explanations)


def cost(
    model: nn.Module,
    dataset: ImageDataset,
    resolution: int | None = None,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> int:
    """How many images `explore` sends through the network, known before it starts."""
    images = normalize_images(dataset, np.array([0]), resolution)
    methods = tuple(gradcam.METHODS) if methods is None else tuple(methods)
    return sum(gradcam.forward_passes(model, images, _layers_of(method, layers), method) for method in methods)


def _layers_of(method: str, layers: Sequence[str] | None) -> Sequence[str] | None:
    return None if gradcam.METHODS[method].all_layers else layers


def _check_index(value: int, count: int, name: str, what: str) -> None:
    if not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise ValueError(f"{name} is {value!r}; there are {count} {what}, so give a whole number from 0 to {count - 1}.")


class ExplorerPanel:
    """An ipywidgets panel: choose an image, a class, a layer, a method and the opacity, and see the map at once.

    Each map is computed when it is first looked at and kept. `widget` is the panel; `show` displays it.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: ImageDataset,
        predictions: Predictions,
        indices: Sequence[int],
        resolution: int | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        import ipywidgets

        if len(indices) == 0:
            raise ValueError("indices is empty; give the number of at least one image of the data set.")
        for index in indices:
            _check_index(index, len(dataset), "an index", "images")
        self.model, self.dataset, self.predictions, self.resolution = model, dataset, predictions, resolution
        self.explanation = functools.lru_cache(maxsize=256)(self._explanation)
        names = dataset.classes
        images = [
            (f"{index}: {names[predictions.labels[index]]}, predicted {names[predictions.predicted[index]]}", int(index))
            for index in indices
        ]
        methods = [(method.title, name) for name, method in gradcam.METHODS.items()]
        self.layers = layer_names(model, layers)
        self.image = ipywidgets.Dropdown(options=images, description="image")
        self.target = ipywidgets.Dropdown(options=[(name, number) for number, name in enumerate(names)], description="class")
        self.layer = ipywidgets.Dropdown(options=self.layers, value=self.layers[-1], description="layer")
        self.method = ipywidgets.Dropdown(options=methods, description="method")
        self.opacity = ipywidgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description="opacity", continuous_update=True)
        self.picture = ipywidgets.Image(format="png", width=PANEL_PIXELS, height=PANEL_PIXELS)
        self.caption = ipywidgets.Label()
        knobs = [self.image, self.target, self.layer, self.method, self.opacity]
        self.widget = ipywidgets.HBox([self.picture, ipywidgets.VBox([*knobs, self.caption])])
        self.target.value = int(predictions.predicted[indices[0]])
        self.image.observe(self._image_changed, names="value")
        for knob in knobs[1:]:
            knob.observe(self._draw, names="value")
        self._draw()

    def _image_changed(self, change: dict[str, Any]) -> None:
        """Another image is first explained for its predicted class."""
        predicted = int(self.predictions.predicted[change["new"]])
        if self.target.value == predicted:
            self._draw()
        else:
            self.target.value = predicted  # which draws

    def _explanation(self, index: int, class_id: int, method: str) -> gradcam.Explanation:
        images = normalize_images(self.dataset, np.array([index]), self.resolution)
        return gradcam.explain(self.model, images, [class_id], _layers_of(method, self.layers), method, progress=False)

    def _draw(self, _: Any = None) -> None:
        index, class_id, method = self.image.value, self.target.value, self.method.value
        chosen = gradcam.METHODS[method]
        if chosen.pass_per_channel:
            self.caption.value = f"{chosen.title}: a forward pass for each channel, this takes a while ..."
        explained = self.explanation(index, class_id, method)
        layer = 0 if chosen.all_layers else explained.layers.index(self.layer.value)
        self.layer.disabled = chosen.all_layers
        pixels = unnormalize(
            normalize_images(self.dataset, np.array([index]), self.resolution), self.dataset.mean, self.dataset.std
        )
        self.picture.value = _png(overlay(pixels[0], explained.maps[0, 0, layer], self.opacity.value))
        confidence = percent_text(explained.confidences[0, 0])
        height, width = explained.grids[layer]
        said = f"probability of {self.dataset.classes[class_id]}: {confidence}; grid of {height} x {width} cells"
        if explained.constant[0, 0, layer]:
            said += "; this map is constant: it marks nothing"
        self.caption.value = said if chosen.class_specific else f"{said}; {chosen.title} is the same for every class"

    def show(self, fallback: Any) -> None:
        """Display the panel; where widgets are not shown (a saved page, an export), the figure `fallback` stands in."""
        from IPython.display import display

        data, metadata = picture_bundle(fallback)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({**data, WIDGET_VIEW: view}, metadata=metadata, raw=True)


def _png(pixels: np.ndarray) -> bytes:
    """The pixels as they are, enlarged without smoothing, as PNG."""
    from PIL import Image

    factor = max(1, PANEL_PIXELS // pixels.shape[0])
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()
