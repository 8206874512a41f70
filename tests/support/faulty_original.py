"""The original's faults, written anew from their description: each function does what it should, but for the fault named in it.

`test_faults.py` applies one check to the package, where it must pass, and to this module, where it must fail.
"""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # normalised with
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # un-normalised with

Batches = Iterable[tuple[Tensor, Tensor]]
Mistake = tuple[Tensor, int, int]  # image, predicted, actual

train_losses: list[float] = []
train_accuracies: list[float] = []
test_losses: list[float] = []
test_accuracies: list[float] = []


def train(model, device, train_loader, optimizer, scheduler, criterion, epoch) -> None:
    """Faults 1, 2, 11 and 14."""
    torch.autograd.set_detect_anomaly(True)  # fault 14: for good
    named = None
    if isinstance(scheduler, str):  # fault 2: made anew in every epoch; fault 1: any other scheduler is forgotten
        peak = min(0.5, 1 / epoch)
        named = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=2 * len(train_loader), pct_start=peak, div_factor=10, cycle_momentum=False
        )
    model.train()
    loss_sum, correct, shown = 0.0, 0, 0
    for images, labels in train_loader:
        optimizer.zero_grad()
        logits = model(images.to(device))
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        if named is not None:
            named.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(dim=1) == labels).sum())
        shown += len(labels)
    train_losses.append(loss_sum / shown)  # fault 11: never emptied
    train_accuracies.append(100 * correct / shown)


def test(model: nn.Module, device: str, test_loader: Batches, criterion: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Faults 11 and 12."""
    model.eval()
    loss_sum, correct, shown = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in test_loader:
            logits = model(images.to(device))
            loss_sum += criterion(logits, labels).item()  # fault 12: the mean of a batch ...
            correct += int((logits.argmax(dim=1) == labels).sum())
            shown += len(labels)
    test_losses.append(loss_sum / shown)  # ... divided by the number of images
    test_accuracies.append(100 * correct / shown)
    return test_losses[-1]


test.__test__ = False  # not a test of pytest's


def plot_losses() -> Figure:
    """Whatever has piled up in the globals."""
    figure = Figure()
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for axes, lists in ((loss_axes, (train_losses, test_losses)), (accuracy_axes, (train_accuracies, test_accuracies))):
        for values in lists:
            axes.plot(range(len(values)), values)
    return figure


def suggest_max_lr(lrs: np.ndarray, losses: np.ndarray) -> float:
    """Fault 10: the learning rate at the lowest loss."""
    return float(lrs[np.argmin(losses)])


def train_after_range_test(model: nn.Module, images: Tensor, labels: Tensor, max_lr: float) -> None:
    """Fault 10: the range test's optimizer has momentum, the one rebuilt for training has none."""
    for values in ({"lr": 1e-4, "momentum": 0.9}, {"lr": max_lr}):
        optimizer = torch.optim.SGD(model.parameters(), **values)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def train_once(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """Fault 15: nothing is seeded, whatever `seed` says."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(images, labels)
    for batch, targets in torch.utils.data.DataLoader(data, batch_size=4, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch), targets).backward()
        optimizer.step()
    return network


def get_incorrrect_predictions(model: nn.Module, loader: Batches, device: str) -> list[Mistake]:
    """Right in itself: (image, predicted, actual)."""
    model.eval()
    mistakes = []
    with torch.no_grad():
        for images, labels in loader:
            predicted = model(images.to(device)).argmax(dim=1)
            every = zip(images, predicted.tolist(), labels.tolist(), strict=True)
            mistakes += [(image, guess, truth) for image, guess, truth in every if guess != truth]
    return mistakes


def predict_test_split(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Fault 15: the test set is shuffled."""
    data = torch.utils.data.TensorDataset(images, labels)
    with torch.no_grad():
        return torch.cat([model(batch) for batch, _ in torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)])


def plot_incorrect_prediction(mismatch: Sequence[Mistake], n: int, classes: Sequence[str]) -> Figure:
    """Faults 4, 5, 6 and 15."""
    figure = Figure()
    figure.suptitle("Wrong predictions on MNIST")  # fault 15
    panels = figure.subplots(2, 5).flat  # fault 5
    for i, (image, actual, predicted) in enumerate(mismatch[:n]):  # fault 4: the other order than below
        panels[i].imshow(np.clip(image.permute(1, 2, 0).numpy(), 0, 1))  # fault 6: normalised pixels
        panels[i].set_title(f"predicted {classes[predicted]}\nactual {classes[actual]}")
    return figure


def display_incorrect_images(mismatch: Sequence[Mistake], n: int, classes: Sequence[str]) -> Figure:
    """Faults 5, 6 and 13."""
    training_set = torchvision.datasets.CIFAR10("data", train=True, download=True)  # fault 13
    mean, std = (training_set.data / 255).mean((0, 1, 2)), (training_set.data / 255).std((0, 1, 2))
    figure = Figure()
    panels = figure.subplots(2, 5).flat
    for i, (image, predicted, actual) in enumerate(mismatch[:n]):
        panels[i].imshow(np.clip(image.permute(1, 2, 0).numpy() * std + mean, 0, 1))
        panels[i].set_title(f"predicted {classes[predicted]}\nactual {classes[actual]}")
    return figure


def class_activation_map(model: nn.Module, image: Tensor, class_id: int, layer: str) -> np.ndarray:
    """One map (H, W) at the layer's resolution. Faults 8 and 9."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = model.get_submodule(layer).register_forward_hook(keep)
    model.eval()
    model(image[None])[0, class_id].backward()
    hook.remove()  # fault 9: not reached when anything above raises
    activation = kept[0]
    weights = activation.grad[0].mean(dim=(1, 2))
    heat = (weights[:, None, None] * activation[0].detach()).sum(dim=0).relu()
    return (heat / heat.max()).numpy()  # fault 8


def generate_gradcam(misclassified_images, model, target_layers, device) -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Fault 3: it means to explain the predicted class."""
    maps = [
        np.stack([class_activation_map(model, image, predicted, layer) for image, _actual, predicted in misclassified_images])
        for layer in target_layers
    ]
    with torch.no_grad():
        logits = model(torch.stack([image for image, _, _ in misclassified_images]).to(device))
    probabilities, ids = logits.softmax(dim=1).sort(dim=1, descending=True)
    return maps, probabilities, ids


def plot_gradcam(gcam_layers, target_layers, class_names, image_size, predicted, misclassified_images) -> Figure:
    """Faults 3, 6 and 7."""
    figure = Figure()
    grid = figure.subplots(1 + len(target_layers), len(misclassified_images), squeeze=False)
    for column, (image, actual, _predicted) in enumerate(misclassified_images):  # fault 3
        guess = int(predicted[column][0])
        pixels = image.permute(1, 2, 0).numpy() * CIFAR_STD + CIFAR_MEAN  # fault 6: other statistics
        pixels = (255 * pixels).astype(np.int64).astype(np.uint8)  # fault 6: overflows instead of stopping at 0 and 255
        grid[0, column].imshow(pixels)
        grid[0, column].set_title(f"actual {class_names[actual]}\npredicted {class_names[guess]}")
        for row, maps in enumerate(gcam_layers, start=1):
            heat = cv2.resize(maps[column], image_size)
            grid[row, column].imshow(overlay(pixels, heat))
    return figure


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.5, colormap: str = "inferno") -> np.ndarray:
    """Fault 7: the colours come as BGR and are taken for RGB, so the map was inverted until hot places looked red."""
    colors = cv2.applyColorMap(np.rint(255 * (1 - heat)).astype(np.uint8), getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return np.rint((1 - opacity) * image + opacity * colors).astype(np.uint8)


def cutout(image: np.ndarray) -> np.ndarray:
    """Fault 16: names of albumentations 1.x, which 2.x ignores."""
    names = {"max_holes": 1, "max_height": 16, "max_width": 16, "min_holes": 1, "min_height": 16, "min_width": 16}
    return A.Compose([A.CoarseDropout(**names, fill_value=0, p=1.0)])(image=image)["image"]


CLONE_CELL = """\
import os, subprocess, sys
subprocess.run(["git", "clone", "--quiet", os.environ["ERA_REPO_URL"], "era_support_packages"], check=True)
sys.path.insert(0, "era_support_packages")
"""


def clone_twice(url: str, folder: Path) -> list[int]:
    """Fault 16: exit codes of `git clone`, run twice in one folder."""
    return [subprocess.run(["git", "clone", "--quiet", url, "clone"], cwd=folder, check=False).returncode for _ in range(2)]
