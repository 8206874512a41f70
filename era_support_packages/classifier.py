"""The one value that travels: a network with all that its predictions depend on."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from era_support_packages.datasets.fitting import IMAGE_SIZE, Fit, Fitting
from era_support_packages.datasets.image_dataset import Channels, ImageDataset
from era_support_packages.datasets.loading import load as load_dataset
from era_support_packages.datasets.normalization import images_at_once, normalize, unnormalize
from era_support_packages.datasets.streaming import Pixels, in_parts
from era_support_packages.evaluation.cautions import unspoken
from era_support_packages.evaluation.images import Images, pixels_and_labels, positions, split_problem
from era_support_packages.evaluation.outputs import logits_problem, predicted_logits
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.gradcam.arguments import TARGETS, checked_batch_size, checked_words
from era_support_packages.models import classifier_file
from era_support_packages.models.catalog import MODELS, difference
from era_support_packages.models.classifier_file import FORMAT, WITHOUT_CLASSIFIER, WITHOUT_WEIGHTS, complete, description
from era_support_packages.system.machine import resolve_device, resolve_precision
from era_support_packages.system.paths import expanded
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.tensor_file import TensorFileError, read_tensors, write_tensors

if TYPE_CHECKING:
    from era_support_packages.gradcam.exploration import Exploration
    from era_support_packages.gradcam.result import Explanation

_GIVE = "give the folder of a run, or a file that Classifier.save wrote."


class ClassifierError(PlainError, ValueError):
    """A file that gives no classifier; the message says why and what to do. The file is left as it is."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with all that its predictions depend on: class names, statistics, resolution, device and precision.

    Images go in as they are (uint8 arrays, a split, image files) and are resized and normalised as in training.

    Example:
        >>> import numpy as np
        >>> from era_support_packages import Classifier, ResNet18
        >>> classifier = Classifier(ResNet18(2), ("cat", "dog"), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), resolution=32)
        >>> photo = np.zeros((32, 32, 3), np.uint8)
        >>> classifier.predict(photo).probabilities.shape
        (1, 2)
        >>> classifier.explain(photo, layers=["layer4"]).maps.shape
        (1, 1, 1, 32, 32)
    """

    network: nn.Module
    """maps normalised float images (N, 3, r, r) to logits (N, C)"""
    classes: tuple[str, ...]
    """the C names, in the order of the logits"""
    mean: Channels
    """of the training pixels, per channel, on the scale [0, 1]"""
    std: Channels
    resolution: int
    """px at which the network was last trained and tested"""
    precision: str = "fp32"
    """of the forward pass: "fp32", "bf16" or "fp16"; explanations are computed in fp32 at least"""
    model: str | None = None
    """the name by which `build_network` makes the network; None for one made elsewhere, which cannot be loaded by name"""
    bits: int | None = None
    """by which files of 16 bits were scaled in training (`ImageDataset.bits`), and are here; None where there were none"""
    image_size: int = None  # type: ignore[assignment]  # an int once the value is made
    """px of the square that photos are brought to, as in training, before they get `resolution`; None: that, and at least 32"""
    fit: Fit = "squash"
    """how: "crop", "squash" or "pad" (`datasets.fitting.Fitting`)"""

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            raise ClassifierError(
                f"A {type(self.network).__name__} is no network; give the nn.Module itself, not its weights or its name."
            )
        for name in ("resolution", "image_size"):
            px: Any = getattr(self, name)
            px = int(px) if isinstance(px, np.integer) else px
            if px is None and name == "image_size" and isinstance(self.resolution, int):
                px = max(self.resolution, IMAGE_SIZE)
            object.__setattr__(self, name, px)
        if problems := classifier_file.value_problems(self):
            raise ClassifierError(" ".join(problems))
        object.__setattr__(self, "classes", tuple(self.classes))

    # ---- what the network says ---------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((weights.device for weights in self.network.parameters()), torch.device("cpu"))

    @property
    def fitting(self) -> Fitting:
        """How photos are brought to the size of the training images."""
        return Fitting(self.image_size, self.fit)

    def predict(
        self, images: Images, indices: Sequence[int] | np.ndarray | None = None, *, flip: bool = False, batch_size: int = 250
    ) -> Predictions:
        """Predictions of images, in the order given.

        images: uint8 (N, H, W, 3) or (H, W, 3), RGB; a split, or predictions of one, with `indices` (K,) for some of it; or a
            file or several.
        flip: average the logits of each image and of its mirror image.  batch_size: of images of 32 px; of larger ones fewer.
        Labels are known for a split and its predictions only. Raises `ValueError` for anything else, `FileNotFoundError` for a
        missing file, and `DatasetError` for one that is no image.
        """
        self._check_split(images)
        checked_batch_size(batch_size)
        if not isinstance(flip, bool | np.bool_):
            raise ValueError(f"flip is {flip!r}; give True or False.")
        pixels, labels = pixels_and_labels(images, indices, self.bits, self.fitting)
        return Predictions(self._logits(pixels, batch_size, flip), labels, self.classes, pixels)

    def _logits(self, pixels: Pixels, batch_size: int = 250, flip: bool = False) -> np.ndarray:
        logits = predicted_logits(self.network, self._batches(pixels, batch_size), self.device, self.precision, flip)
        if problem := logits_problem(logits, len(self.classes)):
            raise ClassifierError(problem)
        return logits

    def explain(
        self,
        images: Images,
        indices: Sequence[int] | np.ndarray | None = None,
        targets: Any = "predicted",
        layers: Any = None,
        method: str = "gradcam",
        **options: Any,
    ) -> "Explanation":
        """Class activation maps of images, which are given as to `predict`; the rest as for `gradcam.explain`.

        targets: also "contrast": the predicted class and its rival, which is the actual class, or the runner-up where that was
        predicted or no labels are known. Of predictions, the class predicted is the one that they hold.
        """
        from era_support_packages.gradcam.explanation import explain  # takes seconds to import, and few need it

        self._check_split(images)
        checked_words(targets, (*TARGETS, "contrast"), self.classes)
        pixels, labels = pixels_and_labels(images, indices, self.bits, self.fitting)
        said = images.take(positions(images, indices)) if isinstance(images, Predictions) else None
        if isinstance(targets, str) and targets == "contrast":
            said = said or unspoken(self.predict)(images, indices)  # what there is to say, explaining says
            targets = np.stack([said.predicted, said.rivals], axis=1)
        elif isinstance(targets, str) and targets == "predicted" and said is not None:
            targets = said.predicted
        elif isinstance(targets, str) and targets == "actual" and labels is not None:
            options.setdefault("labels", labels)
        if said is None:
            unspoken(self._logits)(pixels[:1])  # as many outputs as classes, else no name can be trusted
        inputs = self._normalized(pixels)
        options.setdefault("batch_size", images_at_once(64, self.resolution))
        found = explain(self.network, inputs, targets, layers, method, **options)
        shown = unnormalize(inputs, self.mean, self.std)
        found = found if said is None else found.agreeing(said, options.get("confidence", "softmax") == "softmax")
        return replace(found, images=shown, labels=labels, classes=self.classes)

    def explore(
        self,
        images: Images,
        index: int = 0,
        target: int | None = None,
        *,
        layers: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
    ) -> "Exploration":
        """One image, number `index` of those given as to `predict`, under every method, for the class `target` (None: the
        predicted one).

        methods: keys of `gradcam.METHODS`, None for all, less FullGrad where it is refused for this network, with a warning;
        layers: as for `explain`. Score-CAM and Ablation-CAM take a forward pass for each channel. Raises `ValueError` for an
        index, class, layer or method that is not there, before anything is computed.
        """
        from era_support_packages.gradcam.exploration import check_index, checked_methods, explored, layers_of

        checked_methods(methods)
        source = images if isinstance(images, ImageDataset | Predictions) else unspoken(self.predict)(images)
        check_index(index, len(source), "index", "images")
        if target is not None:
            check_index(target, len(self.classes), "target", "classes")
        targets = "predicted" if target is None else [target]
        return explored(lambda name: self.explain(source, [index], targets, layers_of(name, layers), name), methods)

    def inputs(self, images: Images, indices: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Images as the network takes them, given as to `predict`: float32 (N, 3, r, r), resized and normalised, on the CPU."""
        self._check_split(images)
        return self._normalized(pixels_and_labels(images, indices, self.bits, self.fitting)[0])

    def seen(self, images: Images, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Images as the network sees them, as pictures: uint8 (N, r, r, 3)."""
        return unnormalize(self.inputs(images, indices), self.mean, self.std)

    def _check_split(self, images: Images) -> None:  # whose labels or pixels may be other than in training
        if problem := split_problem(images, self):
            raise ClassifierError(problem)

    def _normalized(self, pixels: Pixels) -> Tensor:
        return normalize(torch.from_numpy(np.ascontiguousarray(pixels[:])), self.mean, self.std, self.resolution)

    def _batches(self, pixels: Pixels, batch_size: int) -> Iterator[Tensor]:
        for part in in_parts(pixels, images_at_once(batch_size, self.resolution)):
            yield normalize(torch.from_numpy(part).to(self.device), self.mean, self.std, self.resolution)

    def description(self) -> dict[str, Any]:
        """What a file keeps of the classifier beside its weights: plain values."""
        return description(self.model, self, self.resolution)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write weights and description into one file, whole or not at all; returns its path.

        Raises `ClassifierError` for a network that its name could not make again, and where the file cannot be written.
        """
        if self.model is None:
            raise ClassifierError(
                "This network was made elsewhere, or changed after it was built, so that no name makes it again; give model= one "
                f"of {', '.join(MODELS)}, or keep its state_dict yourself."
            )
        if sign := difference(self.network, self.model, len(self.classes), self.resolution):
            other = f"The network is no {self.model} of {len(self.classes)} classes, as {sign} shows"
            raise ClassifierError(f"{other}; give model= its name, or None and keep its state_dict yourself.")
        weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        file = expanded(path)
        if os.path.isdir(file):
            raise ClassifierError(f"{file} is a folder; give a file in it.")
        if file.name == "checkpoint.pt" and os.path.isfile(file.with_name("config.json")):
            raise ClassifierError(f"{file} is the checkpoint of a run, which holds more than a classifier; give another file.")
        try:
            write_tensors(file, {"format": FORMAT, "classifier": self.description(), "model": weights})
        except OSError as error:
            reason = f"there is no folder {file.parent}" if not os.path.isdir(file.parent) else error.strerror or str(error)
            raise ClassifierError(f"{file} cannot be written: {reason}; give a file in a folder that is there.") from None
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "auto", precision: str = "auto") -> "Classifier":
        """The classifier of a run's folder, of its checkpoint.pt, or of a file that `save` wrote.

        Nothing else is needed, not even the data set. A checkpoint of format 2 holds no class names and no statistics: then
        its data set is loaded once, they are added to the file, and a line says so.

        device, precision: as for `TrainingConfig`; "auto" is what this machine has.
        Raises `FileNotFoundError` where there is no such file, and `ClassifierError` where it gives no classifier.
        """
        path = expanded(path)
        file = path / "checkpoint.pt" if (is_folder := os.path.isdir(path)) else path
        if not os.path.isfile(file):
            kind = "has no checkpoint.pt: it is no run, or no epoch of it is complete yet" if is_folder else "is not there"
            raise FileNotFoundError(f"{path} {kind}; {_GIVE}")
        try:
            content = read_tensors(file)
        except TensorFileError as error:
            raise ClassifierError(f"{error}; copy it again from where it is whole, or {_GIVE}") from None
        described: Any = content.get("classifier")
        if "format" not in content:
            raise ClassifierError(f"{file} is no file of this package, such as weights alone; build their network, or {_GIVE}")
        if (version := content["format"]) not in (FORMAT, WITHOUT_CLASSIFIER):
            raise ClassifierError(f"{file} has format {version!r}, which this version does not read; update the package.")
        if content.get("model") == {}:
            raise ClassifierError(f"{file} holds no weights any more; {WITHOUT_WEIGHTS}")
        used = resolve_precision(precision, where := resolve_device(device))
        try:
            if described is None and content["format"] == WITHOUT_CLASSIFIER:
                described = _completed(file, content)
            values = {**described, **{name: tuple(described[name]) for name in ("classes", "mean", "std")}}
            network = classifier_file.network_of(values, content["model"])
            network = network.eval().to(where).to(memory_format=torch.channels_last)
            return cls(network, precision=used, **values)
        except ClassifierError:
            raise
        except ValueError as error:  # an unknown network, a value that no classifier has
            raise ClassifierError(f"{file} cannot be used: {error}") from None
        except (LookupError, TypeError, AttributeError, RuntimeError):
            raise ClassifierError(f"{file} holds no classifier; {_GIVE}") from None


def _completed(file: Path, content: dict[str, Any]) -> dict[str, Any]:
    """`complete`, with the data set that the run's configuration names."""
    name = content["config"]["dataset"]
    try:
        train, test = load_dataset(name)
        problem = classifier_file.other_data(content, test)
    except (ValueError, OSError, RuntimeError) as error:
        problem = f"cannot be loaded ({error})"
    else:
        problem = problem and f"is not what the run was trained on ({problem})"
    if problem:
        raise ClassifierError(
            f"{file} was written by an earlier version, which kept no class names: its data set {name!r} is needed once to add "
            f"them, and {problem}. The file is left as it is."
        )
    return complete(file, content, train)
