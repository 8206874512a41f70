"""Augmented images per second on one core: by the batch on the device, by the sample with albumentations, and with torchvision.

python benchmarks/augmentation.py --json benchmarks/results/augmentation.json

Flip, padded crop, cutout and normalisation of the same images in the same batches, each way as it feeds a training loop; both
engines' pixels are compared before anything is timed. albumentations' own pipeline and torchvision draw for themselves.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import albumentations as A
import cv2
import numpy as np
import torch
from bench import alternate, options, publish, ratio
from torch import Tensor
from torchvision.transforms import v2

from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import mean_color
from era_support_packages.system.machine import keep_freed_memory

SIZE, PADDING, CUTOUT = 32, 2, 8
POLICY = AugmentationPolicy(horizontal_flip=0.5, crop_padding=PADDING, cutout=CUTOUT)
ENGINES = {"device": "by the batch on the device", "samples": "by the sample with albumentations"}
PIPELINE, TORCHVISION = "albumentations' own pipeline", "torchvision v2, by the sample"


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch (default: 64)")
    parser.add_argument("--batches", type=int, default=32, help="batches in a round (default: 32)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()  # as training on a CPU does
    data = images(chosen.batch_size * chosen.batches)

    def engine(name: str) -> Iterator[Tensor]:
        batches = TrainingBatches(data, POLICY, chosen.batch_size, torch.device("cpu"), engine=name)
        return (pixels for pixels, _ in batches.epoch(SIZE, 0, len(data)))

    for ours, theirs in zip(engine("device"), engine("samples"), strict=True):
        if not torch.equal(ours, theirs):
            raise SystemExit("The two engines differ: there is nothing to compare.")
    ways: dict[str, Callable[[], Iterator[Tensor]]] = {
        ENGINES["device"]: lambda: engine("device"),
        ENGINES["samples"]: lambda: engine("samples"),
        PIPELINE: lambda: by_albumentations(data, chosen.batch_size),
        TORCHVISION: lambda: by_torchvision(data, chosen.batch_size),
    }
    found = alternate({name: lambda way=way: len(data) / seconds(way) for name, way in ways.items()}, chosen.rounds)
    rows = [
        {
            "way": name,
            "images/s (median)": statistics.median(values),
            "slowest": min(values),
            "fastest": max(values),
            "ms a batch": 1000 * chosen.batch_size / statistics.median(values),
        }
        for name, values in found.items()
    ]
    device = found[ENGINES["device"]]
    times = ratio(device, found[ENGINES["samples"]])
    sentence = (
        f"Flip, padded crop, cutout and normalisation on one core, batches of {chosen.batch_size} at {SIZE} px: "
        f"the device engine is {times:.2f} times as fast as the per-sample engine, with the same pixels, "
        f"{ratio(device, found[PIPELINE]):.1f} times as fast as albumentations' own pipeline and "
        f"{ratio(device, found[TORCHVISION]):.1f} times as torchvision v2."
    )
    publish("augmentation", rows, times, sentence, chosen.json)


def images(count: int) -> ImageDataset:
    """Noise: what it takes to augment an image does not depend on what it shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(count) % 10
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return ImageDataset(pixels, labels, tuple("0123456789"), "noise", "noise", "train", mean, std)


def by_albumentations(data: ImageDataset, batch_size: int) -> Iterator[Tensor]:
    """Batches as a tutorial makes them: one Compose with normalisation, then stacked."""
    side = (CUTOUT, CUTOUT)
    transform = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Pad(padding=PADDING, border_mode=cv2.BORDER_REFLECT_101),
            A.RandomCrop(SIZE, SIZE),
            A.CoarseDropout((1, 1), side, side, fill=mean_color(data), p=1.0),
            A.Normalize(data.mean, data.std),
            A.ToTensorV2(),
        ]
    )
    for start in range(0, len(data), batch_size):
        yield torch.stack([transform(image=image)["image"] for image in data.images[start : start + batch_size]])


def by_torchvision(data: ImageDataset, batch_size: int) -> Iterator[Tensor]:
    """The same on uint8 tensors; RandomErasing is torchvision's cutout."""
    area = (CUTOUT / SIZE) ** 2
    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(SIZE, padding=PADDING, padding_mode="reflect"),
            v2.RandomErasing(1.0, scale=(area, area), ratio=(1, 1), value=list(mean_color(data))),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean, data.std),
        ]
    )
    planes = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous()
    for start in range(0, len(data), batch_size):
        yield torch.stack([transform(image) for image in planes[start : start + batch_size]])


def seconds(way: Callable[[], Iterator[Tensor]]) -> float:
    """The processor's time for all batches, draws included; all of it is on one core, whatever else the machine does."""
    start = time.process_time()
    for _ in way():
        pass
    return time.process_time() - start


if __name__ == "__main__":
    main()
