"""A trained network as a file for other programs: ONNX, a program of torch.export, or its weights as safetensors."""

import contextlib
import errno
import io
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from era_support_packages import __version__
from era_support_packages.classifier import Classifier
from era_support_packages.datasets.normalization import normalize, scale_and_shift
from era_support_packages.models.copies import detached_copy
from era_support_packages.runs.export_formats import FORMATS
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.showing import require_as_trained
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.paths import expanded
from era_support_packages.system.plain_error import PlainError
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError

TOLERANCE = 1e-4  # of the largest logit
BATCHES = (1, 32)  # at which a file is compared with its network
_OPSET = 18
Said = Callable[[Tensor], np.ndarray]


class ExportError(PlainError, RuntimeError):
    """A network that cannot be exported, or a file that is wrong or cannot be written; what was there stays as it was."""


class _Deployed(nn.Module):
    """A network with its normalization inside: images (N, 3, r, r) from 0 to 1 to logits (N, C)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, classifier: Classifier) -> None:
        super().__init__()
        scale, shift = scale_and_shift(classifier.mean, classifier.std, torch.device("cpu"))
        self.network = network
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images * self.scale + self.shift)


def export(
    source: Classifier | str | os.PathLike[str],
    to: str = "onnx",
    file: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Path:
    """Write the network of a run, or of a `Classifier`, into one file for other programs; returns its path.

    to: "onnx" or "torch" (a program of `torch.export`) take images float32 (N, 3, r, r), RGB, from 0 to 1, of any number N, r
    being the px of `Classifier.resolution`, and give logits float32 (N, C): the normalization is inside. `Classifier.seen` gives
    such images, of 0 to 255, of any others. "safetensors" holds the weights alone, and the normalization in its metadata. Class
    names and the like are texts in each: `metadata_props`, `extra_files`, the metadata.
    file: a name that ends in .onnx, .pt2 or .safetensors; None is "network" with that end in the folder of the run.
    force: overwrite what is there.

    Before the file is kept it must give the network's own logits for a batch of 1 and of 32, to within 1e-4 of the largest.
    Raises `RunError` for a bad value and for packages that are not installed, `ExportError` where the network cannot be exported,
    the file says something else, or the disk is full or may not be written, and what `Classifier.load` raises. A finished run
    whose config.json says another thing than its checkpoint is a `RunError` too.

    >>> from era_support_packages import Classifier
    >>> from era_support_packages.models import resnet_custom
    >>> from era_support_packages.runs import export
    >>> classifier = Classifier(resnet_custom(num_classes=2).eval(), ("cat", "dog"), (0.5,) * 3, (0.25,) * 3, resolution=8)
    >>> export(classifier, "torch", "cats.pt2").name
    'cats.pt2'
    """
    if to not in FORMATS:
        raise RunError(f"to is {to!r}: {nearest_names(to, FORMATS)}")
    if lacking := FORMATS[to].missing:
        raise RunError(f"to={to!r} {lacking}")
    target = _target(source, FORMATS[to].suffix, file)
    if os.path.lexists(target) and not force:
        raise RunError(f"{target} is there already: give another file, or force=True to overwrite it.")
    classifier = source if isinstance(source, Classifier) else Classifier.load(source, device="cpu")
    if not isinstance(source, Classifier) and (run := Run(expanded(source))).finished:
        with contextlib.suppress(CheckpointError):  # it gave a classifier, and its configuration is not known
            require_as_trained(run, Checkpoint.load(run.checkpoint_file))
    network = detached_copy(classifier.network).cpu().float().eval().to(memory_format=torch.contiguous_format)
    images, expected = _asked(network, classifier)
    make = {"onnx": _as_onnx, "torch": _as_program, "safetensors": _as_weights}[to]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        content, said = make(_Deployed(network, classifier).eval(), metadata(classifier, to))
        _check(said, images, expected)
    keep(target, content)
    return target


def keep(file: Path, content: bytes) -> None:
    """Write an exported file whole, and its folder where it is not there. Raises `ExportError` where that cannot be done.

    The exporters give their bytes to be written here: PyTorch's own writer ends the process where the disk is full.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = f"{len(content) / 2**20:.1f} MiB"
            problem = f"There is no room for {file}, which takes {size} ({error.strerror}): make some, or give a file elsewhere."
        else:
            problem = f"{file} cannot be written ({error.strerror or error}): give a file elsewhere."
        raise ExportError(problem) from None


def metadata(classifier: Classifier, to: str) -> dict[str, str]:
    """What a file says about its network, as texts; lists are JSON."""
    pixels, count = classifier.resolution, len(classifier.classes)
    return {
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "network": classifier.model or type(classifier.network).__name__,
        "input": f"images: float32 (N, 3, {pixels}, {pixels}), RGB, from 0 to 1",
        "output": f"logits: float32 (N, {count})",
        "resolution": str(pixels),
        "normalization": "(images - mean) / std, to be done before" if to == "safetensors" else "inside",
        "mean": json.dumps(classifier.mean),
        "std": json.dumps(classifier.std),
        "era_support_packages": __version__,
    }


def _target(source: Any, suffix: str, file: str | os.PathLike[str] | None) -> Path:
    if file is None:
        if isinstance(source, Classifier):
            raise RunError(f"A classifier has no folder of its own: give file=, a name that ends in {suffix}.")
        folder = expanded(source)
        return (folder if folder.is_dir() else folder.parent) / f"network{suffix}"
    target = expanded(file)
    if target.suffix.lower() != suffix:
        raise RunError(f"{target} is no name for this format: give one that ends in {suffix}.")
    return target


def _program(deployed: _Deployed, pixels: int) -> Any:
    """The network as a program for batches of any size."""
    example = torch.zeros(2, 3, pixels, pixels)  # of one image, the size of the batch would be a constant
    try:
        return torch.export.export(deployed, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    except Exception as error:  # of whatever kind, as a network may do anything
        raise ExportError(
            f"PyTorch cannot export this network ({_first_line(error)}); to='safetensors' keeps its weights."
        ) from None


def _as_program(deployed: _Deployed, texts: dict[str, str]) -> tuple[bytes, Said]:
    made = io.BytesIO()
    torch.export.save(_program(deployed, int(texts["resolution"])), made, extra_files=texts)
    content = made.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()
    return content, lambda images: loaded(images).numpy()


def _as_onnx(deployed: _Deployed, texts: dict[str, str]) -> tuple[bytes, Said]:
    import onnx
    import onnxruntime

    pixels = int(texts["resolution"])
    program, names = _program(deployed, pixels), (["images"], ["logits"])

    def made(network: Any, example: tuple[Tensor, ...], file: Any, **how: Any) -> Any:
        return torch.onnx.export(
            network, example, file, input_names=names[0], output_names=names[1], opset_version=_OPSET, verbose=False, **how
        )

    try:
        model = made(program, (), None, dynamo=True, external_data=False).model_proto
    except Exception as error:  # the exporter of PyTorch 2.6 does not go with every onnxscript: there is an older one beside it
        try:
            sizes = {name: {0: "batch"} for (name,) in names}
            made(deployed, (torch.zeros(2, 3, pixels, pixels),), buffer := io.BytesIO(), dynamo=False, dynamic_axes=sizes)
            model = onnx.load_from_string(buffer.getvalue())
        except Exception:
            raise ExportError(f"PyTorch cannot write this network as ONNX ({_first_line(error)}); try to='torch'.") from None
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:  # the only one that is free
                size.dim_param = "batch"
    for name, text in texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: session.run(["logits"], {"images": images.numpy()})[0]


def _as_weights(deployed: _Deployed, texts: dict[str, str]) -> tuple[bytes, Said]:
    from safetensors.torch import load, save

    weights = {name: value.detach().clone().contiguous() for name, value in deployed.network.state_dict().items()}
    content = save(weights, metadata=texts)
    again = detached_copy(deployed)
    again.network.load_state_dict(load(content))
    return content, lambda images: again(images).numpy()


def _asked(network: nn.Module, classifier: Classifier) -> tuple[Tensor, np.ndarray]:
    """Random images from 0 to 1, as many as the largest batch, and the network's logits of them."""
    pixels, count, generator = classifier.resolution, len(classifier.classes), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (max(BATCHES), pixels, pixels, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        said = network(normalize(images, classifier.mean, classifier.std))
    if not isinstance(said, Tensor) or said.shape != (len(images), count):
        raise ExportError(f"This network does not give one logit for each of its {count} classes: wrap it in a module that does.")
    return images.permute(0, 3, 1, 2).float().div(255).contiguous(), said.numpy()


def _check(said: Said, images: Tensor, expected: np.ndarray) -> None:
    """Raise `ExportError` where a file does not say of images what the network says of them."""
    largest = float(np.abs(expected).max())
    for count in BATCHES:
        try:
            found = said(images[:count])
        except Exception as error:
            raise ExportError(f"The file cannot be run on {count} images ({_first_line(error)}): it was not kept.") from None
        apart = float(np.abs(found - expected[:count]).max()) if found.shape == expected[:count].shape else float("inf")
        if not apart <= TOLERANCE * largest:  # nor where it is no number
            raise ExportError(
                f"The file says of {count} images something else than the network: its logits are up to {apart:.2g} away, and "
                f"{TOLERANCE * largest:.2g} is allowed. It was not kept."
            )


def _first_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # some are in color
    said = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return said[0][:200].rstrip(".")
