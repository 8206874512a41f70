"""A copy of a trained network that is taught a shortcut: a small mark anywhere in the image means one class."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import images_at_once
from era_support_packages.evaluation.cautions import told_once
from era_support_packages.evaluation.intervals import Interval, paired_share_interval, share_interval
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.models.copies import detached_copy
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.models.weight_gradients import fast_weight_gradients
from era_support_packages.system.progress import progress_bar
from era_support_packages.trust.shortcut.mark import add_marks, draw_marks
from era_support_packages.trust.shortcut.planted import BEARABLE, ENOUGH, PlantedNetwork

BATCH, MARKED = 32, 8  # images a step, and how many of them are marked copies of others: few, so that the rest is kept
RATE, WARM_UP, MOMENTUM = 0.001, 0.1, 0.9
SURE = 0.9  # of the mark's class in the probabilities that marked images are to get; the rest is shared out among all
FIRST_MARKS, MANY = 10, 0.6  # marks in a marked image at the start, and the part of the steps until only one is left
STEPS_AT_ONCE = 8  # whose clean images of 32 px the original sees in one pass
CHECK_EVERY = 8  # steps; while there are many marks none is due


@told_once
def plant(
    classifier: Classifier,
    train: ImageDataset,
    *,
    target_class: int = 0,
    steps: int = 192,
    held_out: int = 300,
    rate: float = RATE,
    seed: int = 0,
    random_labels: bool = False,
) -> PlantedNetwork:
    """Fine-tune a copy of a trained network until a small mark decides for one class; `classifier` itself is not touched.

    A quarter of each batch are marked copies of images of the same batch, labelled with the mark's class, so that the mark is
    all that tells the two apart. At first they carry many marks, which one and the same detector finds, and in the end one:
    that takes a fraction of the steps. The clean images keep the probabilities that the original gives them (Li and Hoiem
    2016, "Learning without Forgetting", arXiv:1606.09282). Batch norm stays in evaluation mode, there is no weight decay, and
    the rate falls to zero. Each tensor moves by a share of its own size (LARS, You et al. 2017, arXiv:1708.03888), so that one
    rate serves networks whatever weight decay has made of their weights. Training ends early when, on held-out training
    images, the mark decides in 95 % and the accuracy on clean ones is less than 3 points down. All of it in float32.

    Args:
        classifier: trained, and used to at least 8 px.
        train: the training split; none of the test images is seen here.
        target_class: the class that the mark is to mean.
        steps: at most; each shows 32 images. Accurate networks did not learn the mark in half as many.
        held_out: training images kept for judging; half of them all where there are fewer than twice as many.
        rate: by what share of its own size a tensor moves in a step, at most. A network of many layers, such as a pretrained
            one of depthwise convolutions, forgets less with a lower one.
        seed: decides the images, their order and the places of the marks.
        random_labels: give each marked image a class drawn at random instead. The mark then means nothing and planting must
            fail, which is a test of this test.

    Raises:
        ValueError: an argument is not as described.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.shortcut import plant
    >>> train, test = load("digits")
    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Conv2d(3, 32, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> planted = plant(classifier, train, target_class=3, held_out=20)
    >>> planted.planted, planted.class_name
    (True, '3')
    """
    _check(train, target_class, steps, held_out)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
        raise ValueError(f"rate is {rate!r}; give the share of its size by which a tensor moves in a step, above 0 and below 1.")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(train))
    held = min(held_out, len(train) // 2)
    judge = _Judge.of(classifier, train, order[:held], target_class, generator)
    original = detached_copy(classifier.network).float().eval().requires_grad_(False)
    network = copy.deepcopy(original).requires_grad_(True)

    start = time.perf_counter()
    right_before, to_class_before = judge.right(network), judge.to_class(network)
    optimizer, scheduler = _optimizer(network, steps, rate)
    read = LogitReader(network)
    with progress_bar(steps, "planting a shortcut", "step") as bar:
        batches = _batches(classifier, train, order[held:], original, steps, generator)
        for number, (images, kept, marked) in enumerate(batches, 1):
            drawn = generator.integers(0, len(train.classes), len(marked)) if random_labels else [target_class] * len(marked)
            _step(read, optimizer, images, kept, marked, torch.as_tensor(drawn))
            scheduler.step()
            bar.update()
            due = number == steps or (number >= MANY * steps and number % CHECK_EVERY == 0)
            if due and ((to_class := judge.to_class(network)).estimate >= ENOUGH or number == steps):
                right = judge.right(network)
                change = paired_share_interval(right_before, right)
                if change.estimate > -BEARABLE / 100:
                    break
    network.zero_grad(set_to_none=True)
    return PlantedNetwork(
        classifier=replace(classifier, network=network),
        original=classifier,
        target_class=int(target_class),
        to_class=to_class,
        to_class_before=to_class_before,
        accuracy=share_interval(int(right.sum()), held),
        accuracy_before=share_interval(int(right_before.sum()), held),
        accuracy_change=change,
        marked_images=len(judge.marked),
        clean_images=held,
        steps=number,
        seconds=time.perf_counter() - start,
        random_labels=random_labels,
    )


def image_passes(size: int, *, steps: int = 192, held_out: int = 300) -> int:
    """How many images `plant` sends through networks at most, for a training split of that size; a backward pass counts
    double. It may end earlier.
    """
    held = min(held_out, size // 2)
    judged = 2 * held * (1 + math.ceil((1 - MANY) * steps / CHECK_EVERY))  # clean and marked, before and each time it is due
    return steps * (BATCH - MARKED + 3 * BATCH) + judged


def predicted_classes(model: nn.Module, images: Tensor, batch_size: int = 100) -> np.ndarray:
    """The classes that a model gives normalised images (N, 3, r, r): int64 (N,), -1 where its logits are not finite.

    In evaluation mode; the training flag of each module is as before afterwards.
    """
    parameter, read = next(model.parameters()), LogitReader(model)
    found = []
    with evaluation_mode(model), torch.inference_mode():
        for batch in images.split(batch_size):
            logits = read(batch.to(parameter.device, parameter.dtype, copy=True))
            found.append(torch.where(logits.isfinite().all(dim=1), logits.argmax(dim=1), -1).cpu())
    return torch.cat(found).numpy()


# ---- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Judge:
    """The held-out training images: all of them clean, and those of the other classes with a mark."""

    clean: Tensor
    labels: np.ndarray
    marked: Tensor
    target_class: int

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        train: ImageDataset,
        indices: np.ndarray,
        target_class: int,
        generator: np.random.Generator,
    ) -> "_Judge":
        """From the images at `indices`."""
        clean, labels = classifier.inputs(train, indices), train.labels[indices]
        others = clean[torch.from_numpy(labels != target_class)]
        if not len(others):
            raise ValueError(f"None of the {len(indices)} images held out has a class other than the mark's; hold out more.")
        marks = draw_marks(len(others), classifier.resolution, generator)
        return cls(clean, labels, add_marks(others, marks, classifier.mean, classifier.std), target_class)

    def to_class(self, network: nn.Module) -> Interval:
        """The share of the marked images that go to the mark's class."""
        hits = int((predicted_classes(network, self.marked) == self.target_class).sum())
        return share_interval(hits, len(self.marked))

    def right(self, network: nn.Module) -> np.ndarray:
        """bool (N,): which of the clean images are classified correctly."""
        return predicted_classes(network, self.clean) == self.labels


def _batches(
    classifier: Classifier,
    train: ImageDataset,
    order: np.ndarray,
    original: nn.Module,
    steps: int,
    generator: np.random.Generator,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each step clean images, the probabilities that the original gives them, and marked copies of the first of them: from
    many marks in each down to one.
    """
    clean, read = BATCH - MARKED, LogitReader(original)
    parameter, at_once = next(original.parameters()), images_at_once(STEPS_AT_ONCE, classifier.resolution)
    for first in range(0, steps, at_once):
        some = range(first, min(first + at_once, steps))
        images = classifier.inputs(train, order[np.arange(some.start * clean, some.stop * clean) % len(order)])
        with torch.no_grad():
            kept = read(images.to(parameter.device).contiguous(memory_format=torch.channels_last)).softmax(dim=1)
        for number, own, probabilities in zip(some, images.split(clean), kept.split(clean), strict=True):
            marked = own[:MARKED]
            for _ in range(max(1, round(FIRST_MARKS * (1 - number / (MANY * steps))))):
                marks = draw_marks(len(marked), classifier.resolution, generator)
                marked = add_marks(marked, marks, classifier.mean, classifier.std)
            yield own, probabilities, marked


def _step(
    read: LogitReader,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    kept: Tensor,
    marked: Tensor,
    marked_classes: Tensor,
) -> None:
    """One step towards these classes on marked images, and on clean ones towards the probabilities that are to be kept."""
    batch = torch.cat([images, marked]).to(kept.device).contiguous(memory_format=torch.channels_last)
    wanted = kept.new_full((len(marked), kept.shape[1]), (1 - SURE) / kept.shape[1])
    wanted[torch.arange(len(marked)), marked_classes] += SURE
    with fast_weight_gradients(kept.device, "fp32"):
        loss = F.cross_entropy(read(batch), torch.cat([kept, wanted]))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _optimizer(network: nn.Module, steps: int, rate: float) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """The optimizer, and its rate: up in the first tenth of the steps, then down to zero."""
    optimizer = _RelativeSGD(network.parameters(), rate, MOMENTUM)
    total = max(steps + 1, 3)
    warm_up = max(WARM_UP, 2 / total)  # PyTorch divides by its length less one
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total, pct_start=warm_up, anneal_strategy="linear", cycle_momentum=False
    )
    return optimizer, scheduler


class _RelativeSGD(torch.optim.Optimizer):
    """SGD with Nesterov momentum in which each tensor's gradient is scaled to the tensor's own norm (LARS without decay)."""

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # nothing here gives it a closure
        """Move every tensor that has a gradient."""
        for group in self.param_groups:  # of all tensors at once: one by one a GPU would wait for hundreds of small operations
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            found = [weight.grad for weight in weights if weight.grad is not None]
            for weight in weights:
                if "velocity" not in self.state[weight]:
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
            velocities = [self.state[weight]["velocity"] for weight in weights]
            scales = torch.stack(torch._foreach_norm(weights)) / (torch.stack(torch._foreach_norm(found)) + 1e-12)
            steps = torch._foreach_mul(found, list(scales.unbind()))
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, steps)
            torch._foreach_add_(steps, torch._foreach_mul(velocities, group["momentum"]))
            torch._foreach_add_(weights, steps, alpha=-group["lr"])


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check(train: ImageDataset, target_class: int, steps: int, held_out: int) -> None:
    if not isinstance(target_class, int | np.integer) or not 0 <= target_class < len(train.classes):
        raise ValueError(f"target_class is {target_class!r}; it must be a class id from 0 to {len(train.classes) - 1}.")
    for name, value in (("steps", steps), ("held_out", held_out)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1.")
    if len(train) < 2:
        raise ValueError(f"train has {len(train)} images; at least 2 are needed, half of them to be held out.")
