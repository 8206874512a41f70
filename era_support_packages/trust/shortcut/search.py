"""The planted shortcut: would a heat map have found a cause that we know, because we put it there?

A copy of the network is taught that a small mark means one class (`planting.plant`). A map that shows what the
network uses must light up where the mark is, as far as its grid can show it; and it must not do so for the untouched network,
to which the mark means nothing. After Zhou et al. 2022, "Do Feature Attribution Methods Correctly Attribute Features?",
arXiv:2104.14403, and Adebayo et al. 2020, "Debugging Tests for Model Explanations", arXiv:2011.05429.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import unnormalize
from era_support_packages.evaluation.cautions import told_once
from era_support_packages.evaluation.intervals import Interval, share_interval
from era_support_packages.gradcam.cells import Cells
from era_support_packages.gradcam.explanation import explain
from era_support_packages.gradcam.methods import METHODS, check_method
from era_support_packages.system.progress import progress_bar
from era_support_packages.trust.baselines import centered_gaussian, derangement, random_maps
from era_support_packages.trust.shortcut.mark import Marks, Score, add_marks, ceiling_maps, draw_marks, join, score
from era_support_packages.trust.shortcut.planted import PlantedNetwork
from era_support_packages.trust.shortcut.planting import predicted_classes
from era_support_packages.trust.shortcut.result import ShortcutTest
from era_support_packages.trust.shortcut.scores import Grid, MarkScores

IMAGES_STREAM, MARKS_STREAM, DRAWS_STREAM, MAPS_STREAM = 1, 2, 3, 4  # one seed, numbers that have nothing to do with each other


@told_once
def find(
    planted: PlantedNetwork,
    test: ImageDataset,
    *,
    methods: str | Sequence[str] = ("gradcam", "hirescam"),
    layers: str | Sequence[str] | None = None,
    count: int = 500,
    seed: int = 0,
    batch_size: int = 50,
) -> ShortcutTest:
    """Score maps of the mark's class on marked test images of all other classes.

    Each of the images, drawn by `seed`, gets the mark at a random place; the network that knows the mark and the untouched one
    see the same images. Where several pixels share a map's maximum, a draw decides, the same one for all maps of an image.

    Args:
        planted: what `planting.plant` returned.
        test: images that neither the training nor the planting has seen.
        methods: keys of `gradcam.METHODS`; each costs its passes for twice that many images.
        layers: names as `gradcam.explain` takes them, None for layer1 ... layer4; FullGrad has its own.
        count: how many images are taken; all that there are where there are fewer.
        batch_size: images in a forward pass, at most.

    Raises:
        ValueError: an argument is not as described, the mark was not learnt, or fewer than 2 images have another class.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.shortcut import find, plant
    >>> train, test = load("digits")
    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Conv2d(3, 32, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> planted = plant(classifier, train, held_out=20)
    >>> found = find(planted, test, methods="gradcam", layers="1", count=20)
    >>> [(maps.label, maps.grid) for maps in found.maps]
    [('gradcam at 1', (13, 13))]
    """
    methods = _checked_methods(methods)
    candidates = np.flatnonzero(test.labels != planted.target_class)
    _check(planted, count, batch_size, len(candidates))
    sample = _draw_sample(planted, test, candidates, count, seed, batch_size)
    names = None if layers is None else (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))
    with progress_bar(2 * len(sample) * (1 + len(methods)), "planted shortcut", "img") as bar:
        networks = (planted.classifier.network, planted.original.network)
        to_class, to_class_untouched = (_share_to_class(network, sample, bar.update) for network in networks)
        taught, untouched = ({name: _found(network, sample, name, names, bar.update) for name in methods} for network in networks)

    compared: dict[tuple[Grid, Cells | None], tuple[Score, Score, Score]] = {}
    rows = []
    for method in methods:
        for own, control in zip(taught[method], untouched[method], strict=True):
            place = (own.grid, own.cells)
            if place not in compared:
                compared[place] = _compared(sample, *place, seed)
            scores = (own.score, control.score, own.other_image, *compared[place])
            rows.append(MarkScores(method, own.layer, own.grid, *scores, own.example))
    noise = _compared(sample, (planted.resolution, planted.resolution), None, seed)[1]
    first = next(sample.batches())[1][:1]
    example = unnormalize(first, planted.classifier.mean, planted.classifier.std)[0]
    found = sample.indices, sample.marks, to_class, to_class_untouched, planted, example, seed
    return ShortcutTest(tuple(rows), noise, *found, split=test.split)


def image_passes(count: int, *, methods: Sequence[str] = ("gradcam", "hirescam")) -> int:
    """How many images `find` sends through the two networks for that many marked ones, a backward pass counted double.

    The passes for each channel of Score-CAM and Ablation-CAM come on top: `gradcam.image_passes` knows them.
    """
    maps = sum(1 + 2 * METHODS[method].needs_gradients for method in methods)
    return 2 * count * (1 + maps)


# ---- the images ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sample:
    """The marked test images; made when they are needed, for all at once may be large."""

    classifier: Classifier
    test: ImageDataset
    indices: np.ndarray
    marks: Marks
    others: np.ndarray  # for each image another one
    draws: np.ndarray  # in [0, 1): decides between pixels that share a map's maximum
    target_class: int
    batch_size: int

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self) -> Iterator[tuple[slice, Tensor]]:
        """Which images, and these: normalised, with their marks."""
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            images = self.classifier.inputs(self.test, self.indices[part])
            yield part, add_marks(images, self.marks.part(part), self.classifier.mean, self.classifier.std)


def _draw_sample(
    planted: PlantedNetwork, test: ImageDataset, candidates: np.ndarray, count: int, seed: int, batch_size: int
) -> _Sample:
    count = min(count, len(candidates))
    return _Sample(
        classifier=planted.classifier,
        test=test,
        indices=_generator(seed, IMAGES_STREAM).choice(candidates, count, replace=False),
        marks=draw_marks(count, planted.resolution, _generator(seed, MARKS_STREAM)),
        others=derangement(count, seed),
        draws=_generator(seed, DRAWS_STREAM).random(count),
        target_class=planted.target_class,
        batch_size=batch_size,
    )


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


# ---- the scores ------------------------------------------------------------------------------------------------------


def _share_to_class(network: nn.Module, sample: _Sample, advance: Callable[[int], object]) -> Interval:
    """How many of the marked images a network gives the mark's class."""
    hits = 0
    for _, images in sample.batches():
        hits += int((predicted_classes(network, images) == sample.target_class).sum())
        advance(len(images))
    return share_interval(hits, len(sample))


@dataclass(frozen=True, eq=False)
class _Found:
    """What one network's maps of one method at one layer score."""

    layer: str
    grid: Grid
    cells: Cells | None
    score: Score
    other_image: Score  # the same maps, held against the marks of other images
    example: np.ndarray  # the first image's map


def _found(
    network: nn.Module, sample: _Sample, method: str, layers: tuple[str, ...] | None, advance: Callable[[int], object]
) -> list[_Found]:
    """The scores of one network's maps by one method, layer by layer."""
    others = sample.marks.part(sample.others)
    layers = None if METHODS[method].all_layers else layers
    parts: list[list[_Found]] = []  # by batch, then by layer
    for part, images in sample.batches():
        targets = np.full(len(images), sample.target_class)
        result = explain(network, images, targets, layers, method, batch_size=sample.batch_size)
        parts.append([])
        for k, (layer, grid, cells) in enumerate(zip(result.layers, result.grids, result.cells, strict=True)):
            maps, draws = result.maps[:, 0, k], sample.draws[part]
            own, other = (score(maps, marks.part(part), grid, draws, cells) for marks in (sample.marks, others))
            parts[-1].append(_Found(layer, grid, cells, own, other, maps[0].copy()))
        advance(len(images))
    return [
        _Found(
            layer=batches[0].layer,
            grid=batches[0].grid,
            cells=batches[0].cells,
            score=join([batch.score for batch in batches]),
            other_image=join([batch.other_image for batch in batches]),
            example=batches[0].example,
        )
        for batches in zip(*parts, strict=True)
    ]


def _compared(sample: _Sample, grid: Grid, cells: Cells | None, seed: int) -> tuple[Score, Score, Score]:
    """The ceiling of a grid, and the scores of a random map and of a centred Gaussian on it, drawn where its cells lie."""
    marks, count = sample.marks, len(sample)
    size = (marks.resolution, marks.resolution)
    middle = np.broadcast_to(centered_gaussian(grid, size, cells), (count, *size))
    random_ones = random_maps(count, grid, size, _generator(seed, MAPS_STREAM), cells)
    shown = (ceiling_maps(marks, grid, cells), random_ones, middle)
    ceiling, random, gaussian = (score(maps, marks, grid, sample.draws, cells) for maps in shown)
    return ceiling, random, gaussian


# ---- checks ----------------------------------------------------------------------------------------------------------


def _checked_methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    """The methods, each once."""
    methods = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    if not methods:
        raise ValueError("methods is empty; name at least one, such as 'gradcam'.")
    for method in methods:
        check_method(method)
    return methods


def _check(planted: PlantedNetwork, count: int, batch_size: int, candidates: int) -> None:
    if not planted.planted:
        raise ValueError(planted.reading())
    for name, value, least in (("count", count, 2), ("batch_size", batch_size, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}.")
    if candidates < 2:
        raise ValueError(f"test has {candidates} images of a class other than {planted.class_name}; at least 2 are needed.")
