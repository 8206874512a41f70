"""A panel of widgets: turn the knobs of a class activation map without running a cell again."""

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import text_html
from era_support_packages.gradcam.arguments import layer_names
from era_support_packages.gradcam.explanation import Explanation, default_layers
from era_support_packages.gradcam.exploration import check_index, layers_of
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.plots.panels import overlay
from era_support_packages.plots.style import HEAT_COLORMAP, percent_text

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


PANEL_PIXELS = 240  # width of the panel's pictures on the screen, at most: two side by side in a notebook of 600


COLOR_BAR_PIXELS = 12


STAND_IN = "Run this cell to get the panel."


class ExplorerPanel:
    """An ipywidgets panel: choose an image, a class, a layer, a method and the opacity, and see the map beside its input.

    The list names the images of `indices`, and `number` takes any other one. Each map is computed when it is first looked at and
    kept. `widget` is the panel; `show` displays it.

    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> panel = plots.ExplorerPanel(classifier, classifier.predict(test, range(20)), indices=[3, 5])
    >>> panel.layers, panel.image.value
    (('layer1', 'layer2', 'layer3', 'layer4'), 3)
    >>> panel.image.value = 5  # as choosing it does; in a notebook panel.show() displays the panel
    """

    def __init__(
        self,
        classifier: Classifier,
        predictions: Predictions,
        indices: Sequence[int],
        *,
        layers: Sequence[str] | None = None,
    ) -> None:
        import ipywidgets

        if len(indices) == 0:
            raise ValueError("indices is empty; give the number of at least one image of the data set.")
        for index in indices:
            check_index(index, len(predictions), "an index", "images")
        self.classifier, self.predictions = classifier, predictions
        self.explanation = functools.lru_cache(maxsize=256)(self._explanation)
        if layers is None:
            layers = default_layers(classifier.network, classifier.inputs(predictions, indices[:1]))
        self.layers = layer_names(classifier.network, layers)
        first, classes = int(indices[0]), [(name, number) for number, name in enumerate(predictions.classes)]
        self.listed = tuple(dict.fromkeys(map(int, indices)))
        images = [(self._image_text(index), index) for index in self.listed]
        methods = [(method.title, name) for name, method in METHODS.items()]
        predicted = int(predictions.predicted[first])
        self.image = ipywidgets.Dropdown(options=images, value=first, description="image")
        self.number = ipywidgets.BoundedIntText(value=first, min=0, max=len(predictions) - 1, description="number")
        self.target = ipywidgets.Dropdown(options=classes, value=predicted, description="class")
        self.layer = ipywidgets.Dropdown(options=self.layers, value=self.layers[-1], description="layer")
        self.method = ipywidgets.Dropdown(options=methods, description="method")
        self.opacity = ipywidgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description="opacity", continuous_update=True)
        self.caption = ipywidgets.HTML(layout=ipywidgets.Layout(max_width="300px", margin="0 0 0 1em"))
        width = min(PANEL_PIXELS, _enlargement(classifier.resolution) * classifier.resolution)
        self.input, self.picture = (ipywidgets.Image(format="png", width=width) for _ in range(2))
        self.color_bar = ipywidgets.Image(value=_color_bar(width), format="png", width=width, height=COLOR_BAR_PIXELS)
        self.widget = self._arranged()
        self.image.observe(self._image_chosen, names="value")
        self.number.observe(self._number_changed, names="value")
        for knob in (self.target, self.layer, self.method, self.opacity):
            knob.observe(self._draw, names="value")
        self._draw()

    def _arranged(self) -> Any:
        """Input and map with its colour bar side by side, and the knobs beside them, or below where the page is narrow."""
        from ipywidgets import HBox, Label, Layout, VBox

        ends = HBox([Label("0 = nothing"), Label("1 = strongest")], layout=Layout(justify_content="space-between"))
        margin = Layout(margin="0 1em 0 0")
        pictures = HBox(
            [VBox([self.input, Label("input")], layout=margin), VBox([self.picture, self.color_bar, ends], layout=margin)],
            layout=Layout(flex="0 0 auto"),
        )
        knobs = VBox([self.image, self.number, self.target, self.layer, self.method, self.opacity, self.caption])
        return HBox([pictures, knobs], layout=Layout(flex_flow="row wrap", align_items="flex-start"))

    def _image_text(self, index: int) -> str:
        said = self.predictions
        predicted = said.classes[said.predicted[index]]
        if said.labels is None:
            return f"{index}: predicted {predicted}"
        actual = said.classes[said.labels[index]]
        return f"{index}: {actual}, " + ("right" if actual == predicted else f"predicted {predicted}")

    def _image_chosen(self, change: dict[str, Any]) -> None:
        if change["new"] is not None:  # none of the list: the number tells which
            self.number.value = change["new"]

    def _number_changed(self, change: dict[str, Any]) -> None:
        """Another image is first explained for its predicted class."""
        index = change["new"]
        self.image.value = index if index in self.listed else None
        predicted = int(self.predictions.predicted[index])
        if self.target.value == predicted:
            self._draw()
        else:
            self.target.value = predicted  # which draws

    def _explanation(self, index: int, class_id: int, method: str) -> Explanation:
        layers = layers_of(method, self.layers)
        return self.classifier.explain(self.predictions, [index], [class_id], layers, method, progress=False)

    def _draw(self, _: Any = None) -> None:
        index, class_id, method = self.number.value, self.target.value, self.method.value
        chosen = METHODS[method]
        if chosen.pass_per_channel:
            self._say(f"{chosen.title}: a forward pass for each channel, this takes a while ...")
        explained = self.explanation(index, class_id, method)
        layer = 0 if chosen.all_layers else explained.layers.index(self.layer.value)
        self.layer.disabled = chosen.all_layers
        pixels = explained.pictures[0]
        self.input.value = _png(pixels)
        self.picture.value = _png(overlay(pixels, explained.maps[0, 0, layer], self.opacity.value))
        height, width = explained.grids[layer]
        said = [
            f"image {self._image_text(index)}",
            f"probability of {self.predictions.classes[class_id]}: {percent_text(explained.confidences[0, 0])}",
            f"grid of {height} x {width} cells",
        ]
        if explained.constant[0, 0, layer]:
            said.append("this map is constant: it marks nothing")
        if not chosen.class_specific:
            said.append(f"{chosen.title} is the same for every class")
        self._say(*said)

    def _say(self, *lines: str) -> None:
        self.caption.value = "<br>".join(map(text_html, lines))

    def show(self) -> None:
        """Display the panel; where widgets are not shown (a saved page, an export), a sentence says how to get it."""
        from IPython.display import display

        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({"text/plain": STAND_IN, WIDGET_VIEW: view}, raw=True)


def _enlargement(width: int) -> int:
    """How many pixels on the screen each of an image's has, along its side."""
    return max(1, PANEL_PIXELS // width)


def _png(pixels: np.ndarray) -> bytes:
    """The pixels as they are, enlarged without smoothing, as PNG."""
    from PIL import Image

    factor = _enlargement(pixels.shape[1])
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()


def _color_bar(width: int) -> bytes:
    """The colours of a map from 0 at the left to 1, as PNG of `width` pixels."""
    import matplotlib
    from PIL import Image

    colors = matplotlib.colormaps[HEAT_COLORMAP](np.linspace(0, 1, width), bytes=True)[:, :3]
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(colors, (COLOR_BAR_PIXELS, width, 3)).copy()).save(buffer, format="PNG")
    return buffer.getvalue()
