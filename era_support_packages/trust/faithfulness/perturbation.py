"""What becomes of a classifier's confidence when pixels are taken away in the order of a heat map.

Every function asks a `Subject` about changed copies of its N images and returns a value per image, on the softmax
probability of the class explained. Maps enter as a `Removal`: the *rank* of each pixel, or of each patch of pixels that goes as a
whole, so that the share removed is the nominal one, also for a map that is zero nearly everywhere. Only
`confidences_of_masked` uses the values of a map.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.machine import autocast
from era_support_packages.system.progress import progress_bar
from era_support_packages.trust.faithfulness.imputation import imputed
from era_support_packages.trust.faithfulness.removal import Removal

BLUR = 1 / 8  # standard deviation of the blur that hides an image, in its shorter side
AT_ONCE = 64  # changed images made before the network is asked about them


@dataclass(frozen=True, eq=False)
class Subject:
    """N images, and the confidence asked for: that of one class for each image."""

    probabilities: Callable[[Tensor], Tensor]
    """maps images (N, C, H, W) to softmax probabilities (N, classes): one forward pass"""
    images: Tensor
    """float32 (N, C, H, W), normalised"""
    class_ids: np.ndarray
    """int64 (N,)"""

    def confidences(self, images: Tensor, class_ids: np.ndarray | None = None) -> np.ndarray:
        """Softmax probability of each image's class, float64 (M,), for changed copies (M, C, H, W) of the images.

        `class_ids` int64 (M,); None where there is one copy of each of the N images.
        """
        chosen = torch.from_numpy(self.class_ids if class_ids is None else class_ids)[:, None]
        return self.probabilities(images).cpu().gather(1, chosen)[:, 0].numpy().astype(np.float64)


@contextmanager
def confidence_meter(model: nn.Module, precision: str, batch_size: int, total: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within the block: the `probabilities` of a `Subject`, in evaluation mode, which move a progress bar of `total` images.

    The training flag of each module is as before afterwards, also after an exception.
    """
    parameter = next(model.parameters())
    logits = LogitReader(model)

    def probabilities(images: Tensor) -> Tensor:
        parts = []
        for batch in images.split(batch_size):
            # A copy: networks that begin with an in-place operation would change the images.
            given = logits(batch.to(parameter.device, parameter.dtype, copy=True))
            parts.append(logits.confidences(given.float()))
            bar.update(len(batch))
        return torch.cat(parts)

    with (
        progress_bar(total, "faithfulness", "img") as bar,
        evaluation_mode(model),
        torch.inference_mode(),
        autocast(parameter.device, precision),
    ):
        yield probabilities


# ---- metrics -----------------------------------------------------------------------------------------------------------


def road(subject: Subject, removal: Removal, percentiles: Sequence[float], seed: int) -> np.ndarray:
    """Remove and debias (ROAD, Rong et al. 2022, arXiv:2202.00449), as pytorch-grad-cam combines it: float64 (N,).

    (LeRF - MoRF) / 2, averaged over the percentiles: half of how much more confidence is left when the least relevant
    pixels are removed than when as many of the most relevant ones are; in [-0.5, 0.5], 0 for an order that says nothing,
    the higher the better. At percentile p, 100 - p percent of the pixels are replaced by what their neighbours
    suggest, by solving a linear system, plus noise of standard deviation 0.01 drawn by `seed`.
    """
    differences = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the noise comes from the global state; only a CPU draws it
        for percentile in percentiles:
            count = removal.count_at(percentile)
            both = [imputed(subject.images, removed(count)) for removed in (removal.most_relevant, removal.least_relevant)]
            most, least = np.split(subject.confidences(torch.cat(both), np.tile(subject.class_ids, 2)), 2)
            differences.append((least - most) / 2)
    return np.mean(differences, axis=0)


def confidences_of_masked(subject: Subject, maps: np.ndarray) -> np.ndarray:
    """Confidence on the image times its map (N, H, W) in [0, 1] (Chattopadhay et al. 2018, section 4.1): float64 (N,).

    Where the map is 0 the image becomes 0, the mean colour.
    """
    return subject.confidences(subject.images * torch.from_numpy(maps)[:, None])


def replaced_curves(subject: Subject, removal: Removal, counts: Sequence[int], before: Tensor, after: Tensor) -> np.ndarray:
    """Confidence as pixels of `before` are replaced by those of `after`, the most relevant first: float64 (N, K).

    `before` and `after` (N, C, H, W); `counts` (K,) of the removal's units. Deletion (Petsiuk et al. 2018, arXiv:1806.07421) goes
    from the image to one that holds nothing, insertion from one that holds nothing to the image.
    """
    points = []
    at_once = max(1, AT_ONCE // len(before))  # full batches: each costs a GPU the same, however few images it holds
    for start in range(0, len(counts), at_once):
        some = counts[start : start + at_once]
        removed = torch.from_numpy(np.stack([removal.most_relevant(count) for count in some]))[:, :, None]
        replaced = torch.where(removed, after, before).flatten(0, 1)
        points.append(subject.confidences(replaced, np.tile(subject.class_ids, len(some))).reshape(len(some), -1))
    return np.concatenate(points).T


def blurred(images: Tensor) -> Tensor:
    """Images (N, C, H, W) blurred beyond recognition: a Gaussian of one eighth of the shorter side, mirrored at the edges."""
    deviation = BLUR * min(images.shape[2:])
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, deviation, deviation)))
