"""Class activation maps: where in an image a network found the evidence for a class, at several layers at once.

The arithmetic of every method is pytorch-grad-cam's. The passes through the network are run here, so that one forward
and one backward pass serve all layers, each layer's gradient belongs to its own activation in whatever order the layers
are asked for, and the model is left as it was found, also after an exception.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from numpy.typing import ArrayLike
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

# Any class of the library that turns one layer's activation and gradient into a map can be added here.
METHODS: dict[str, type[BaseCAM]] = {
    "gradcam": GradCAM,  # Selvaraju et al. 2017, arXiv:1610.02391: channels weighted by their mean gradient
    "gradcam++": GradCAMPlusPlus,  # Chattopadhay et al. 2018, arXiv:1710.11063: weighted positive gradients
    "hirescam": HiResCAM,  # Draelos and Carin 2020, arXiv:2011.08891: gradient times activation, pixel by pixel
    "xgradcam": XGradCAM,  # Fu et al. 2020, arXiv:2008.02312: mean gradient, weighted by the normalised activation
    "layercam": LayerCAM,  # Jiang et al. 2021, doi:10.1109/TIP.2021.3089943: positive gradient times activation
}

DEFAULT_LAYERS = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Class activation maps of N images for T target classes each, at L layers."""

    maps: np.ndarray
    """float32 (N, T, L, H, W) in [0, 1], each scaled by itself, at the images' resolution; a constant map is zeros"""
    targets: np.ndarray
    """int64 (N, T): the class ids explained"""
    layers: tuple[str, ...]
    """the names of the L layers, in the order asked for"""
    confidences: np.ndarray
    """float32 (N, T): softmax probability of each target class"""
    raw_ranges: np.ndarray
    """float32 (N, T, L, 2): minimum and maximum of the map after its ReLU, unscaled, at the layer's resolution"""
    method: str
    """the key of `METHODS` that made the maps"""
    grids: tuple[tuple[int, int], ...]
    """height and width of each layer's activation: how finely its maps can mark a place"""

    @property
    def constant(self) -> np.ndarray:
        """bool (N, T, L): where the unscaled map has one value everywhere, so that it marks nothing and is shown as zeros"""
        return self.raw_ranges[..., 0] == self.raw_ranges[..., 1]


def explain(
    model: nn.Module,
    images: Tensor | np.ndarray,
    targets: str | ArrayLike | Tensor = "predicted",
    layers: str | nn.Module | Iterable[str | nn.Module] | None = None,
    method: str = "gradcam",
    labels: ArrayLike | Tensor | None = None,
    batch_size: int = 64,
) -> Explanation:
    """Explain a classifier's decisions: class activation maps of all `layers` from one forward pass per batch.

    Each map equals the one pytorch-grad-cam computes for that layer alone. The network runs in evaluation mode and at
    least in float32; afterwards the training and `requires_grad` flags, gradients and hooks of `model` are as before.

    Args:
        model: maps float images to logits (N, C); compiled, data-parallel and weight-averaged models are unwrapped.
        images: float (N, channels, H, W), normalised as in training, on any device.
        targets: "predicted", "actual" (then `labels` are needed), or integer class ids (N,) or (N, T):
            T classes per image cost one forward and T backward passes.
        layers: names as in `model.named_modules()` or the modules themselves, in any order, repeats allowed; each gives
            (N, channels, h, w) and runs once in a forward pass. None means layer1 ... layer4.
        method: a key of `METHODS`, where the source of each method stands.
        labels: integer class ids (N,), used for the targets "actual" only.
        batch_size: images per forward pass, at least 1.

    Raises:
        ValueError: an argument is not as described; found before any computation, except for what only a forward pass
            can show: class ids beyond the last class, what the layers give, logits that are not finite.
    """
    check_method(method)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, not {batch_size!r}")
    images = _checked_images(images)
    count, _, height, width = images.shape
    ids = _class_ids(targets, labels, count)
    model = _unwrapped(model)
    names = _layer_names(model, layers)
    device = next((p.device for p in model.parameters()), None)
    if device is None:
        raise ValueError("the model has no parameters, so it has learnt nothing to explain; pass a trained network")

    unique = list(dict.fromkeys(names))
    columns = 1 if ids is None else ids.shape[1]
    class_ids = np.zeros((count, columns), np.int64) if ids is None else ids
    confidences = np.zeros((count, columns), np.float32)
    maps = np.zeros((count, columns, len(unique), height, width), np.float32)
    raw_ranges = np.zeros((count, columns, len(unique), 2), np.float32)
    grids: dict[str, tuple[int, int]] = {}

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        network = _full_precision(model)
        dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        with _left_as_found(network), _eager(network):
            cam = METHODS[method](network, [])
            for start in range(0, count, batch_size):
                part = slice(start, start + batch_size)
                # A copy: networks that begin with an in-place operation would change the caller's images.
                batch = images[part].to(device, dtype, copy=True)
                logits, activations = _forward(network, batch, unique)
                grids = {name: tuple(activation.shape[2:]) for name, activation in activations.items()}
                classes = logits.shape[1]
                if ids is None:
                    class_ids[part] = logits.argmax(dim=1, keepdim=True).cpu().numpy()
                elif (largest := ids.max()) >= classes:
                    raise ValueError(f"class id {largest} is out of range: the model's classes are 0 to {classes - 1}")
                chosen = torch.from_numpy(class_ids[part]).to(device)
                confidences[part] = logits.detach().softmax(dim=1).gather(1, chosen).cpu().numpy()
                # Images do not influence each other's logits, so the gradient of the sum holds the gradient of each.
                scores = logits.gather(1, chosen).sum(dim=0)
                for t in range(columns):
                    gradients = _gradients(scores[t], activations, keep_graph=t + 1 < columns)
                    for k, name in enumerate(unique):
                        raw = _raw_maps(cam, batch, name, class_ids[part, t], activations[name], gradients[name])
                        raw_ranges[part, t, k] = np.stack([raw.min(axis=(1, 2)), raw.max(axis=(1, 2))], axis=1)
                        maps[part, t, k] = upsample(raw, (height, width))

    order = [unique.index(name) for name in names]
    sizes = tuple(grids[name] for name in names)
    return Explanation(maps[:, :, order], class_ids, names, confidences, raw_ranges[:, :, order], method, sizes)


def check_method(method: str) -> None:
    """Raise `ValueError` with the nearest names where `method` is not a key of `METHODS`."""
    if method not in tuple(METHODS):
        raise _unknown("method", method, METHODS)


def upsample(raw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps (N, h, w) at a layer's resolution brought to the image's (height, width): float32 (N, H, W) in [0, 1].

    As pytorch-grad-cam does it: each map is scaled to [0, 1] by itself, resized bilinearly, and scaled again; a constant map
    becomes zeros.
    """
    resized = scale_cam_image(np.asarray(raw, np.float32), (size[1], size[0]))
    # Rounding in the scaling may leave [0, 1] by a hair.
    return np.clip(scale_cam_image(np.maximum(resized, 0)), 0, 1)


def _raw_maps(cam: BaseCAM, images: Tensor, name: str, ids: np.ndarray, activation: Tensor, gradient: Tensor) -> np.ndarray:
    """One layer's class activation maps (N, h, w) after the ReLU, at the layer's own resolution."""
    categories = [ClassifierOutputTarget(int(class_id)) for class_id in ids]
    arrays = activation.detach().cpu().numpy(), gradient.cpu().numpy()
    # A zero denominator (Grad-CAM++, XGrad-CAM) or an overflow leaves pixels without a value.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        raw = cam.get_cam_image(images, cam.model.get_submodule(name), categories, *arrays, eigen_smooth=False)
    return np.maximum(np.nan_to_num(raw), 0)


def _forward(network: nn.Module, images: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """One forward pass: logits (N, C) and each layer's activation (N, channels, h, w) by name, ready for gradients."""
    with _recorded(network, names, len(images)) as activations:
        logits = network(images)
    for name in names:
        if name not in activations:
            raise ValueError(f"layer {name!r} does not run in the model's forward pass; choose a layer that does")
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits of shape ({len(images)}, classes), not {given}")
    if not torch.isfinite(logits).all():
        raise ValueError("the model's logits are NaN or infinite, so its weights are unusable; train it again")
    return logits, activations


@contextmanager
def _recorded(network: nn.Module, names: Sequence[str], count: int) -> Iterator[dict[str, Tensor]]:
    """Within the block, a forward pass fills the dictionary with each layer's activation, by name."""
    activations: dict[str, Tensor] = {}

    def record(name: str, output: object) -> Tensor:
        if name in activations:
            raise ValueError(f"layer {name!r} runs more than once in a forward pass; choose a layer that runs once")
        if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != count:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {name!r} gives {given}, but a class activation map needs ({count}, channels, height, width); "
                "choose a convolutional layer"
            )
        # Copied twice, so that in-place operations before and behind the layer leave the stored activation alone. With
        # the parameters frozen, the first layer's activation is a leaf: the backward pass ends there.
        activations[name] = output.clone() if output.requires_grad else output.detach().clone().requires_grad_()
        return activations[name].clone()

    handles = []
    try:
        for name in names:
            layer = network.get_submodule(name)
            handles.append(layer.register_forward_hook(lambda _layer, _inputs, output, name=name: record(name, output)))
        yield activations
    finally:
        for handle in handles:
            handle.remove()


def _gradients(score: Tensor, activations: dict[str, Tensor], keep_graph: bool) -> dict[str, Tensor]:
    """One backward pass: the gradient of `score` at each activation, by name; parameters get none."""
    gradients: Iterable[Tensor | None] = [None] * len(activations)
    if score.requires_grad:
        gradients = torch.autograd.grad(score, list(activations.values()), retain_graph=keep_graph, allow_unused=True)
    by_name = dict(zip(activations, gradients, strict=True))
    for name, gradient in by_name.items():
        if gradient is None:
            raise ValueError(f"no gradient flows from the logits to layer {name!r}; choose a layer on the way to them")
    return by_name


@contextmanager
def _left_as_found(network: nn.Module) -> Iterator[None]:
    """Within the block: evaluation mode and frozen parameters; afterwards each flag is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        network.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, whose layers have their plain names."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod
        else:
            return model


def _eager(network: nn.Module) -> AbstractContextManager:
    """Runs compiled parts as they were written: the hooks would make torch.compile start over, or be passed over."""
    compiled = any(m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _full_precision(model: nn.Module) -> nn.Module:
    """The model, or a float32 copy where it is in half precision or its tensors cannot take part in autograd."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_inference() or (tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32):
            return copy.deepcopy(model).float()
    return model


def _checked_images(images: Tensor | np.ndarray) -> Tensor:
    """Images as a float tensor (N, channels, H, W) without gradient history."""
    if isinstance(images, np.ndarray):
        images = torch.tensor(np.ascontiguousarray(images))
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        given = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a normalised float tensor (N, channels, height, width), not {given}")
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} are empty; pass at least one image")
    if not torch.isfinite(images).all():
        raise ValueError("images contain NaN or infinite values; check how they were normalised")
    return images.detach()


def _class_ids(targets: str | ArrayLike | Tensor, labels: ArrayLike | Tensor | None, count: int) -> np.ndarray | None:
    """Class ids int64 (N, T), or None where they are the predicted ones and follow from the forward pass."""
    if isinstance(targets, str):
        if targets == "predicted":
            return None
        if targets != "actual":
            raise _unknown("targets", targets, ("predicted", "actual"), " or integer class ids")
        if labels is None:
            raise ValueError("targets 'actual' needs the labels; pass labels=, a class id for each image")
        return _integers("labels", labels, count, f"({count},)", dimensions=(1,))
    return _integers("targets", targets, count, f"({count},) or ({count}, T)", dimensions=(1, 2))


def _integers(name: str, given: ArrayLike | Tensor, count: int, shape: str, dimensions: tuple[int, ...]) -> np.ndarray:
    """Class ids as int64 (N, T)."""
    try:
        ids = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    except ValueError:
        raise ValueError(f"{name} must be integer class ids of shape {shape}, not lists of unequal lengths") from None
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim not in dimensions or len(ids) != count or ids.size == 0:
        raise ValueError(f"{name} must be integer class ids of shape {shape}, not {ids.dtype} of shape {ids.shape}")
    if ids.min() < 0:
        raise ValueError(f"class id {ids.min()} is out of range: the class ids in {name} must be 0 or more")
    return ids.reshape(count, -1).astype(np.int64)


def _layer_names(model: nn.Module, layers: str | nn.Module | Iterable[str | nn.Module] | None) -> tuple[str, ...]:
    """The names of the target layers in the order asked for."""
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if layers is None:
        if not all(name in modules for name in DEFAULT_LAYERS):
            raise ValueError(
                f"{type(model).__name__} has no layer1 ... layer4 to take by default; pass layers=, for example "
                f"{', '.join(repr(name) for name in list(modules)[:3])}"
            )
        return DEFAULT_LAYERS
    single = isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable)
    layers = [layers] if single else list(layers)
    if not layers:
        raise ValueError("layers is empty; name at least one layer, or pass None for layer1 ... layer4")
    own = {module: name for name, module in model.named_modules() if name}
    names = [own.get(layer) if isinstance(layer, nn.Module) else layer for layer in layers]
    for layer, name in zip(layers, names, strict=True):
        if name is None:
            raise ValueError(f"the {type(layer).__name__} in layers is not a layer of this model; pass one of its own")
        if name not in list(modules):
            raise _unknown("layer", name, modules)
    return tuple(names)


def _unknown(what: str, value: object, valid: Iterable[str], also: str = "") -> ValueError:
    """The error for a name that is not among the valid ones; names the nearest."""
    lowered = {name.lower(): name for name in valid}
    nearest = [repr(lowered[name]) for name in get_close_matches(str(value).lower(), lowered, n=3, cutoff=0)]
    return ValueError(f"unknown {what} {value!r}; the nearest valid names are {', '.join(nearest)}{also}")
