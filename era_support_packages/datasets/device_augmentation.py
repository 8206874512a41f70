"""The device engine of the augmentation policy: a whole batch at a time, in PyTorch, on the device the images lie on.

The same draws give the pixels of the per-sample engine (`sample_augmentation.Augmenter`), bit for bit, but for the interpolation
of shift-scale-rotate and of the resized crop (one grey level here and there with OpenCV 5; OpenCV 4 rounds places to 1/32 px).
Nothing here waits for the device or copies from the host.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from era_support_packages.datasets.augmentation_policy import AugmentationDraws, AugmentationPolicy


def augment(images: Tensor, draws: AugmentationDraws, policy: AugmentationPolicy, fill: Tensor) -> Tensor:
    """The batch after the operations of the policy: uint8 (B, H, W, 3) for uint8 (B, H, W, 3).

    `draws` holds tensors (B, ...) and `fill` the colour of cut-out squares and opened corners, uint8 (3,), all on the images'
    device.
    """
    if policy.horizontal_flip:
        images = flip(images, draws.flipped)
    if policy.random_resized_crop:
        images = resized_crop(images, draws.boxes)
    if policy.shift_scale_rotate:
        images = shift_scale_rotate(images, draws.translations, draws.scales, draws.rotations, fill)
    if policy.cutout and policy.cutout_first:
        images = cutout(images, draws.holes, policy.cutout, fill)
    if policy.crop_padding:
        images = crop(images, draws.corners, policy.crop_padding)
    if policy.rgb_shift:
        images = rgb_shift(images, draws.rgb_shifts)
    if policy.brightness_contrast:
        images = brightness_contrast(images, draws.contrasts, draws.brightnesses)
    if policy.cutout and not policy.cutout_first:
        images = cutout(images, draws.holes, policy.cutout, fill)
    return images


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """The mirror image where `flipped`, bool (B,)."""
    columns = torch.arange(images.shape[2], device=images.device)
    return _take_columns(images, torch.where(flipped[:, None], columns.flip(0), columns))


def crop(images: Tensor, corners: Tensor, padding: int) -> Tensor:
    """The window of the old size at `corners`, int64 (B, 2), of the image with a reflected border of `padding` px."""
    height, width = images.shape[1:3]
    rows = _reflected(corners[:, :1] - padding + torch.arange(height, device=images.device), height)
    columns = _reflected(corners[:, 1:] - padding + torch.arange(width, device=images.device), width)
    first_rows = height * torch.arange(len(images), device=images.device)[:, None]
    return _take_columns(images.flatten(0, 1).index_select(0, (first_rows + rows).flatten()).view_as(images), columns)


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """The part of each image in its box, int64 (B, 4), top, left, height and width, enlarged to the whole size; bilinear."""
    height, width = images.shape[1:3]
    top, left, rows, columns = boxes[:, :, None].float().unbind(1)
    y = (torch.arange(height, device=images.device) + 0.5) * rows / height - 0.5
    x = (torch.arange(width, device=images.device) + 0.5) * columns / width - 0.5
    y, x = top + torch.minimum(y.clamp(min=0), rows - 1), left + torch.minimum(x.clamp(min=0), columns - 1)
    y, x = (2 * y + 1) / height - 1, (2 * x + 1) / width - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    planes = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return planes.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 ... size - 1 mirrored back at the first and last pixel, as often as it takes (REFLECT_101)."""
    period = max(2 * (size - 1), 1)
    positions = positions % period
    return torch.minimum(positions, period - positions)


def _take_columns(images: Tensor, columns: Tensor) -> Tensor:
    """For each image its columns number `columns`, int64 (B, W)."""
    values = (3 * columns[:, :, None] + torch.arange(3, device=images.device)).flatten(1)
    return images.flatten(2).gather(2, values[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def shift_scale_rotate(images: Tensor, translations: Tensor, scales: Tensor, rotations: Tensor, fill: Tensor) -> Tensor:
    """Scaled and turned about the centre, then shifted; bilinear, with `fill` outside of the image.

    translations: float32 (B, 2), px to the right and down.  scales: float32 (B,).  rotations: float32 (B,), degrees.
    """
    height, width = images.shape[1:3]
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    x = torch.arange(width, device=images.device)[None, None, :] - center_x - translations[:, 0, None, None]
    y = torch.arange(height, device=images.device)[None, :, None] - center_y - translations[:, 1, None, None]
    angles = torch.deg2rad(rotations)[:, None, None]
    cos, sin = angles.cos() / scales[:, None, None], angles.sin() / scales[:, None, None]
    from_x, from_y = cos * x - sin * y + center_x, sin * x + cos * y + center_y  # where each pixel comes from
    grid = torch.stack([(2 * from_x + 1) / width - 1, (2 * from_y + 1) / height - 1], dim=-1)
    background = fill.float()[:, None, None]  # taken off, since grid_sample knows no border but 0
    planes = F.grid_sample(images.permute(0, 3, 1, 2).float() - background, grid, mode="bilinear", align_corners=False)
    return (planes + background).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def rgb_shift(images: Tensor, shifts: Tensor) -> Tensor:
    """`shifts`, int16 (B, 3), added to the channels; clipped."""
    width = images.shape[2]
    lines = images.flatten(2).to(torch.int16) + shifts.repeat(1, width)[:, None]
    return lines.clamp_(0, 255).to(torch.uint8).unflatten(2, (width, 3))


def brightness_contrast(images: Tensor, contrasts: Tensor, brightnesses: Tensor) -> Tensor:
    """contrast * pixel + brightness, float32 (B,) each; clipped, the fraction cut off as albumentations' table does."""
    pixels = images.float().mul_(contrasts[:, None, None, None]).add_(brightnesses[:, None, None, None])
    return pixels.clamp_(0, 255).to(torch.uint8)


def cutout(images: Tensor, holes: Tensor, side: int, fill: Tensor) -> Tensor:
    """One square of `side` px in the colour `fill`, its corner at `holes`, int64 (B, 2); it ends where the image ends."""
    height, width = images.shape[1:3]
    rows = torch.arange(height, device=images.device) - holes[:, :1]
    columns = torch.arange(width, device=images.device) - holes[:, 1:]
    in_rows = ((rows >= 0) & (rows < side)).to(torch.uint8)
    in_columns = ((columns >= 0) & (columns < side)).to(torch.uint8).repeat_interleave(3, dim=1)
    hole = in_rows[:, :, None] * in_columns[:, None]  # a product of uint8 is ten times as fast here as `where`
    return (images.flatten(2) * (1 - hole) + fill.repeat(width) * hole).unflatten(2, (width, 3))
