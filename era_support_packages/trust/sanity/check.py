"""Do class activation maps depend on what was learnt? Weights are redrawn from the output back, and the maps compared.

The model parameter randomisation test of Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv:1810.03292, section 3,
in its cascading form, with limits fixed beforehand and what the maps of two random networks share as the yardstick.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import random_indices
from era_support_packages.evaluation.cautions import told_once
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.arguments import checked_batch_size
from era_support_packages.gradcam.explanation import default_layers, explain
from era_support_packages.gradcam.layouts import Reshape
from era_support_packages.gradcam.methods import METHODS, check_method
from era_support_packages.gradcam.passes import unwrapped
from era_support_packages.models.copies import detached_copy
from era_support_packages.system.progress import progress_bar
from era_support_packages.trust.sanity.randomization import JOINT, cascade, checked_stages, mean_confidence, restated
from era_support_packages.trust.sanity.similarity import SSIM_WINDOW, as_compared, is_constant, map_ssim, unit_ranks
from era_support_packages.trust.sanity.verdict import SanityCheck

MapMaker = Callable[[nn.Module, Tensor, np.ndarray], np.ndarray]
"""(network, images (N, 3, H, W), class ids int64 (N,)) -> maps (N, H, W) in [0, 1]"""


def sanity_check(
    classifier: Classifier,
    test: ImageDataset,
    train: ImageDataset,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    count: int = 24,
    train_count: int = 128,
    methods: str | MapMaker | Iterable[str | MapMaker] = ("gradcam", "eigencam"),
    draws: int = 12,
    cascades: int = 1,
    seed: int = 0,
    **options: Any,
) -> SanityCheck:
    """Redraw a copy of a classifier's network stage by stage, and compare its maps with its own, as `check_network` says.

    Args:
        classifier: the trained network, with all that its predictions depend on.
        test: the split whose images are explained: those at `indices`, else `count` drawn by `seed`; better 16 or more.
        train: the split of which `train_count` images, not augmented, serve to estimate batch-norm statistics.
        methods, draws, cascades: as for `check_network`.
        seed: of the images and of the weights.
        options: `layers`, `stages` and `batch_size` as for `check_network`.

    Raises `ValueError` where an argument is not as described.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.sanity import sanity_check
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> check = sanity_check(classifier, test, train, count=8, train_count=16, draws=2)
    >>> check.stages, check.maps.shape  # a method each, unchanged and redrawn, images, height, width
    (('4', '0'), (2, 3, 8, 16, 16))
    """
    if indices is None:
        indices = random_indices(len(test), count, seed + 1)
    statistics = classifier.inputs(train, random_indices(len(train), train_count, seed))
    inputs: Tensor = classifier.inputs(test, indices)
    how: dict[str, Any] = {"methods": methods, "draws": draws, "cascades": cascades, "seed": seed}
    found = check_network(classifier.network, inputs, statistics, **how, **options)
    names = tuple(classifier.classes[label] for label in test.labels[indices])
    return replace(found, images=classifier.seen(test, indices), names=names)


@told_once
def check_network(
    model: nn.Module,
    images: Tensor,
    train_images: Tensor,
    *,
    methods: str | MapMaker | Iterable[str | MapMaker] = ("gradcam", "hirescam", "eigencam"),
    layers: str | Sequence[str] | None = None,
    draws: int = 16,
    cascades: int = 2,
    stages: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    reshape: Reshape | None = None,
) -> SanityCheck:
    """Redraw a copy of the network stage by stage from the output back, and compare its maps with the trained network's.

    How weights and batch-norm statistics are redrawn is told in `randomization.cascade`. The network runs in evaluation mode
    and in float32; the model itself is not touched, nor is any global random state. The maps of
    1 + cascades x (stages - 1) + draws networks are computed. Maps of more than 64 px a side are compared as means of patches,
    64 a side.

    Args:
        model: a trained classifier of images, to logits (N, C).
        images: float (N, 3, H, W), normalised as in training; 16 or more, better of a test split.
        train_images: float (M, 3, H, W), normalised, not augmented; a few hundred.
        methods: keys of `gradcam.METHODS`, or functions (network, images (N, 3, H, W), class ids int64 (N,)) -> maps
            (N, H, W) in [0, 1], known by their `__name__`.
        layers: names as for `gradcam.explain`; None means `gradcam.default_layers`.
        draws: how many fully random networks the verdicts rest on, at least 2; each pair of them is compared.
        cascades: how many of these, from 1, are reached stage by stage; the others are redrawn at once, which costs less.
        stages: names of the modules to redraw, from the output back, as in `randomization.checked_stages`. None: the
            top-level ones; for a ResNet18 linear, layer4, layer3, layer2, layer1, conv1 + bn1.
        seed: the weights are a function of it, of the draw and of the stage.
        batch_size: images per forward pass.
        reshape: as for `gradcam.explain`.

    Raises:
        ValueError: an argument is not as described, or a method of the caller's gives anything but maps.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages.trust.sanity import check_network
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> check = check_network(network, torch.rand(4, 3, 16, 16), torch.rand(8, 3, 16, 16), methods="gradcam", draws=2)
    >>> check.stages, check.correlations.shape  # methods, stages, draws, images
    (('4', '0'), (1, 2, 2, 4))
    """
    methods = _named(methods)
    if not isinstance(draws, int) or draws < 2:
        raise ValueError(f"draws is {draws!r}; it must be an integer of at least 2, to compare random networks with each other.")
    if not isinstance(cascades, int) or not 1 <= cascades <= draws:
        raise ValueError(f"cascades is {cascades!r}; it must be an integer from 1 to {draws}, the number of draws.")
    checked_batch_size(batch_size)
    network = detached_copy(unwrapped(model)).float().eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    images, train_images = _checked(images, "images", device), _checked(train_images, "train_images", device)
    stages = checked_stages(network, images[:1], stages)
    if layers is None and any(not callable(method) and not METHODS[method].all_layers for method in methods.values()):
        layers = default_layers(network, images[:1])
    window = min(SSIM_WINDOW, *images.shape[2:])
    window -= 1 - window % 2  # an odd number

    networks = 1 + cascades * (len(stages) - 1) + draws
    with progress_bar(networks * len(methods), "sanity check", "method") as bar:
        targets = _predicted(network, images, batch_size)
        options = {"layers": layers, "batch_size": batch_size, "reshape": reshape}
        maps_of = partial(_maps, images=images, targets=targets, methods=methods, options=options, bar=bar)
        rows, trained = maps_of(network)
        trained_compared = as_compared(trained)
        trained_ranks = unit_ranks(trained_compared)
        shape = (len(rows), len(stages), draws, len(images))
        correlations, ssim, constant = (np.full(shape, np.nan) for _ in range(3))
        shown, random_ranks, random_confidences = [trained], [], []
        for draw in range(draws):
            own = stages if draw < cascades else (JOINT.join(stages),)
            steps = cascade(network, own, train_images, (seed, draw), batch_size)
            for stage, redrawn in enumerate(steps, start=len(stages) - len(own)):
                _, maps = maps_of(redrawn)
                compared = as_compared(maps)
                ranks = unit_ranks(compared)
                correlations[:, stage, draw] = (trained_ranks * ranks).sum(axis=-1)
                ssim[:, stage, draw] = map_ssim(trained_compared, compared, window)
                constant[:, stage, draw] = is_constant(maps)
                if draw == 0:
                    shown.append(maps)
            random_ranks.append(ranks)
            random_confidences.append(mean_confidence(redrawn, images, batch_size))

    pairs = [(first * second).sum(axis=-1) for first, second in combinations(random_ranks, 2)]
    shares = np.concatenate([is_constant(trained).mean(axis=1)[:, None], np.nanmean(constant, axis=(2, 3))], axis=1)
    return SanityCheck(
        methods=tuple(method for method, _ in rows),
        layers=tuple(layer for _, layer in rows),
        stages=stages,
        targets=targets,
        correlations=correlations,
        ssim=ssim,
        random_correlations=np.stack(pairs, axis=1),
        constant=shares,
        maps=np.stack(shown, axis=1),
        ssim_window=window,
        training_images=len(train_images),
        seed=seed,
        confidence=mean_confidence(restated(network, train_images, batch_size), images, batch_size),
        random_confidences=np.array(random_confidences),
    )


def image_passes(
    model: nn.Module,
    image: Tensor,
    count: int,
    *,
    train_count: int = 128,
    methods: Sequence[str] = ("gradcam", "eigencam"),
    draws: int = 12,
    cascades: int = 1,
) -> int:
    """How many images `sanity_check` sends through the network, a backward pass counted double; `image` (1, 3, H, W) is one."""
    network = unwrapped(model)
    stages = len(checked_stages(network, image.to(next(network.parameters()).device)))
    networks = 1 + cascades * (stages - 1) + draws
    maps = sum(1 + 2 * METHODS[method].needs_gradients for method in methods)
    return networks * count * maps + networks * train_count + (1 + draws) * count


# ---- maps ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _predicted(network: nn.Module, images: Tensor, batch_size: int) -> np.ndarray:
    """The class with the highest logit, int64 (N,)."""
    logits = LogitReader(network)
    return torch.cat([logits(batch).argmax(dim=1) for batch in images.split(batch_size)]).cpu().numpy()


def _maps(
    network: nn.Module,
    images: Tensor,
    targets: np.ndarray,
    methods: dict[str, str | MapMaker],
    options: dict[str, Any],
    bar: tqdm,
) -> tuple[list[tuple[str, str]], np.ndarray]:
    """R pairs of a method's and a layer's name, and their maps, float32 (R, N, H, W)."""
    rows: list[tuple[str, str]] = []
    maps: list[np.ndarray] = []
    for name, method in methods.items():
        if callable(method):
            rows.append((name, ""))
            maps.append(_checked_maps(method(network, images, targets), name, images))
        else:
            own = {**options, "layers": None} if METHODS[method].all_layers else options
            found = explain(network, images, targets, method=method, progress=False, **own)
            rows.extend((name, layer) for layer in found.layers)
            maps.extend(found.maps[:, 0].swapaxes(0, 1))
        bar.update()
    return rows, np.stack(maps)


def _checked_maps(maps: np.ndarray, name: str, images: Tensor) -> np.ndarray:
    """What a method of the caller's gave, as float32 (N, H, W)."""
    maps = np.asarray(maps, np.float32)
    expected = (len(images), *images.shape[2:])
    if maps.shape != expected or not (np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(
            f"method {name} must give maps of shape {expected} in [0, 1]; it gave shape {maps.shape} with values from "
            f"{maps.min():.4g} to {maps.max():.4g}."
        )
    return maps


# ---- arguments -------------------------------------------------------------------------------------------------------


def _named(methods: str | MapMaker | Iterable[str | MapMaker]) -> dict[str, str | MapMaker]:
    """The methods by name."""
    methods = (methods,) if isinstance(methods, str) or callable(methods) else tuple(methods)
    if not methods:
        raise ValueError("methods is empty; name at least one of gradcam.METHODS, or pass a function.")
    for method in methods:
        if not callable(method):
            check_method(method)
    names = tuple(getattr(method, "__name__", type(method).__name__) if callable(method) else method for method in methods)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"Two methods are called {twice!r}; their results could not be told apart: give each its own name.")
    return dict(zip(names, methods, strict=True))


def _checked(images: Tensor, what: str, device: torch.device) -> Tensor:
    """Images as float32 on the device."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or len(images) < 2:
        given = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"{what} must be a normalised float tensor (N, channels, height, width) with N of 2 or more, not {given}."
        )
    if min(images.shape[2:]) < 3:
        raise ValueError(f"{what} of {images.shape[2]}x{images.shape[3]} px are too small to compare; take at least 3x3.")
    if not torch.isfinite(images).all():
        raise ValueError(f"{what} contain NaN or infinite values; check how they were normalised.")
    return images.detach().to(device, torch.float32)
