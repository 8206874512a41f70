"""What a configuration's values may be where a range or a list of words does not say it."""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from era_support_packages.models.libraries import is_library_name
from era_support_packages.system.extras import is_installed
from era_support_packages.system.settings import is_number, is_text

if TYPE_CHECKING:
    from era_support_packages.training.config import ConfigValues

TrackerName = Literal["tensorboard", "trackio", "wandb"]
DEVICES = "'cpu', 'cuda', 'cuda:1', 'mps'"
ASKED_DEVICES = f"one of 'auto', {DEVICES}"
FOLDER_NAME = (
    "a folder name of at most 200 bytes without slashes, quotes, line breaks and : * ? < > |, with no space at its ends and no "
    "dot at its start"
)
PLAN = (
    "a list of (pixels from 8 to 512, or a share of image_size up to 1, share of the images), with shares that add up to 1, such "
    "as [(16, 0.7), (32, 0.3)] or [(0.5, 0.7), (1, 0.3)]"
)


def is_device(value: object) -> bool:
    """Whether it is written as a device; not whether it is there."""
    return isinstance(value, str) and re.fullmatch(r"cpu|mps|cuda(:\d{1,2})?", value, re.ASCII) is not None


def is_asked_device(value: object) -> bool:
    """Whether it is written as a device, or leaves the choice open."""
    return value == "auto" or is_device(value)


def is_resolved_text(value: object) -> bool:
    """Whether it is a text other than "auto"."""
    return is_text(value) and value != "auto"


def is_folder_name(value: object) -> bool:
    """Whether a folder may be called so on any system; file systems take 255 bytes, a suffix and temporary names included."""
    return (
        isinstance(value, str)
        and value.strip() != ""
        and value == value.strip()
        and value[0] != "."
        and not set(value) & set('/\\:*?"<>|\n\0')
        and len(value.encode(errors="replace")) <= 200
    )


def is_plan(value: object) -> bool:
    """Whether it is a plan of resolutions: ((pixels, share), ...)."""
    return (
        isinstance(value, tuple)
        and value != ()
        and all(isinstance(step, tuple) and len(step) == 2 for step in value)
        and all(_is_resolution(pixels) for pixels, _ in value)
        and all(is_number(share, whole=False) and 0 < share <= 1 for _, share in value)
        and math.isclose(sum(share for _, share in value), 1, abs_tol=1e-6)
    )


def tracker_problem(name: str | None) -> str:
    """The sentence for a tracker whose package is not installed here; "" where it is, and for no tracker."""
    if name is None or is_installed(name):
        return ""
    return f"tracker is {name!r}, but its package is not installed: type pip install {name}, or give no tracker."


def is_plan_in_pixels(value: object) -> bool:
    """Whether it is a plan without shares of the size of the images."""
    return is_plan(value) and isinstance(value, tuple) and all(pixels > 1 for pixels, _ in value)


def _is_resolution(value: object) -> bool:
    """Whether it is a share up to 1, or a number of px."""
    if is_number(value, whole=False) and 0 < value <= 1:
        return True
    return is_number(value, whole=True) and 8 <= value <= 512


def _problems_with_size(config: "ConfigValues") -> Iterator[str]:
    """A sentence for each length in px that is larger than the images."""
    size = config.image_size
    if not is_number(size, whole=True) or not 32 <= size <= 512:  # "auto", or refused already
        return
    way_out = f"image_size is {size}: give less, or a larger image_size"
    if is_plan(config.resolutions) and (largest := max(pixels for pixels, _ in config.resolutions)) > size:
        yield f"resolutions go up to {largest} px, but {way_out}."
    if is_number(config.crop_padding, whole=True) and size <= config.crop_padding <= 511:
        yield f"crop_padding is {config.crop_padding}, which must be smaller than the images, but {way_out}."
    if is_number(config.cutout, whole=True) and size < config.cutout <= 512:
        yield f"cutout is {config.cutout}, but {way_out}."


def problems_together(config: "ConfigValues") -> Iterator[str]:
    """A sentence for each two values that do not go together."""
    if (config.epochs is None) == (config.train_images is None):
        yield (
            f"epochs is {config.epochs!r} and train_images is {config.train_images!r}; give exactly one of them: the passes over "
            "the training split, or the images shown in all."
        )
    if config.final_test is False and config.validation == 0:
        yield (
            "final_test is False and validation is 0.0; without a validation share nothing is left to judge the network by: set "
            "validation=0.1, or leave final_test out."
        )
    yield from _problems_with_size(config)
    if config.preset_name == "finetune" and config.weights is None:
        if config.pretrained is False:
            yield "preset 'finetune' starts from pretrained weights, and pretrained is False: give preset='scratch' instead."
        elif config.pretrained == "auto" and not is_library_name(config.model):
            yield (
                f"preset 'finetune' starts from pretrained weights, and there are none of {config.model!r}: set model to one of "
                "torchvision's or timm's, such as 'torchvision/resnet18', or give weights='file.pth'."
            )
    if config.pretrained is True and not is_library_name(config.model):
        yield (
            f"pretrained is True, but there are no weights of {config.model!r}: set model to one of torchvision's or timm's, "
            "such as 'torchvision/resnet18', or pretrained to False."
        )
    if config.pretrained is True and config.weights is not None:
        yield f"pretrained is True and weights is {config.weights!r}: give one of the two."
    flip = config.horizontal_flip
    if config.alternating_flip is True and is_number(flip, whole=False) and 0 <= flip <= 1 and flip not in (0, 0.5):
        yield (
            f"alternating_flip is True and horizontal_flip is {flip!r}; an alternating flip mirrors each image in every other "
            "pass: set horizontal_flip to 0.5, to 'auto', or to 0 for no flip, or alternating_flip to False."
        )
