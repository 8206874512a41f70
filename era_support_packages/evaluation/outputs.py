"""What a network returns, read as logits (N, C): from tensors, tuples and dicts, one output, probabilities."""

from collections.abc import Iterable
from math import log

import numpy as np
import torch
from torch import Tensor, nn

from era_support_packages.evaluation.cautions import caution, warn_of_company, warning_of_chance
from era_support_packages.evaluation.log_probabilities import sharpened
from era_support_packages.evaluation.operations import OVER_ONE, Operations, is_linear, keeps_sums, tensors_in
from era_support_packages.evaluation.running import run
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.machine import autocast

TOLERANCE = 1e-3
"""how far the probabilities of a row may be from adding up to one; further where the output's type rounds more"""
COMPLEMENT = 1e-5
"""the same of two sigmoids, which may be those of z and -z"""
ROUNDED = 0.05
"""the same behind a softmax, whose values may have been rounded before they were brought to float32"""
SURE = 100
"""how many times its rounding a probability must lack to 1 to have a map: of less, not two digits are left"""
SUREST = 1e-25
"""the same where it is known from the other probabilities: of less, float32 has no products"""


class LogitReader:
    """Runs a network and reads its logits (N, C), in float32 at least; what its output is, the first batch shows.

    - Logits as they are; from a tuple, list, dict or `ModelOutput` where one tensor may be them; (N, C, 1, 1) as (N, C).
    - One output z for each image: two classes with the scores -z/2 and z/2, whose softmax is the sigmoid of z. Behind a sigmoid z
      is what went into it; of one column p of a softmax it is log p - log(1 - p), and class 1 is that column's.
    - Probabilities (rows that are not negative and add up to one, of a softmax or for other images too): their logarithms, whose
      softmax they are. Log-probabilities stay as they are. What the largest lacks to 1 is taken from the others
      (`log_probabilities.sharpened`), so that value and gradient are exact however sure the network is.
    - Independent probabilities (behind a sigmoid, several a row): what went into the sigmoid.

    Before the first batch is read, warns of a network whose answer rests on more than its image (`cautions`). Raises
    `ValueError` where the network cannot take the images (`running.run`), and where the output holds no logits, several
    tensors that may be, or values that look like probabilities and come from nothing that tells how to read them.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages.evaluation import LogitReader
    >>> reader = LogitReader(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)))
    >>> reader(torch.zeros(5, 3, 2, 2)).shape
    torch.Size([5, 2])
    >>> reader.form
    'one logit'
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.form: str | None = None
        """what the network returns: "logits", "one logit", "one probability", "one log-probability", "probabilities",
        "log-probabilities" or "independent probabilities"; None before the first batch"""
        self._last: frozenset[str] = frozenset()  # the operations that probabilities were made by, where they are known

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (N, C) that the network gives for images."""
        return self.read(self.run(images), images)

    def run(self, images: Tensor) -> object:
        """What the network returns for images; before the first batch is read, with a warning where its answer rests on more."""
        if self.form is not None or not isinstance(self.network, nn.Module):
            return run(self.network, images)
        warn_of_company(self.network)
        with warning_of_chance(self.network, images.device):
            return run(self.network, images)

    @property
    def score(self) -> str:
        """What a class is given: "logit" or "log-probability"."""
        return "log-probability" if self.form in ("probabilities", "log-probabilities") else "logit"

    def read(self, output: object, images: Tensor) -> Tensor:
        """The logits (N, C) in what the network returned for `images`."""
        values = found_logits(output, len(images))
        rounding = torch.finfo(values.dtype).eps
        values = values.float() if torch.finfo(values.dtype).bits < 32 else values
        if self.form is None:
            self.form = self._form(values.detach(), images, rounding)
        # A probability of 0 has no logarithm, and behind a sigmoid 0 and 1 have none.
        precision = torch.finfo(values.dtype)
        if self.form in ("one probability", "independent probabilities"):
            values = values.clamp_min(precision.tiny).log() - torch.log1p(-values.clamp_max(1 - precision.eps / 2))
        elif self.form == "one log-probability":
            values = values.clamp(max=-precision.eps)
            values = values - torch.log(-torch.expm1(values))
        if classes_of_one(self.form):
            return torch.cat([-values / 2, values / 2], dim=1)
        if self.form == "probabilities":
            values = values.clamp_min(precision.tiny).log()
        return sharpened(values, rounding) if self._exact else values

    @property
    def _exact(self) -> bool:
        """Whether the rows add up to one always, so that the largest probability is known from the others."""
        return self.score == "log-probability" and bool(self._last) and all(keeps_sums(name) for name in self._last)

    def confidences(self, logits: Tensor, kind: str = "softmax") -> Tensor:
        """Probabilities (N, C) of logits from this network: by the "softmax", or of each class by itself ("sigmoid").

        Raises `ValueError` for "sigmoid" where the network's probabilities add up to one, and warns where "softmax" makes shares
        of what the network takes for independent.
        """
        if kind == "softmax":
            self.warn_of_shares()
        if kind == "softmax" or classes_of_one(self.form):
            return logits.softmax(dim=1)
        if self.score == "log-probability":
            raise ValueError("The network's probabilities add up to one, so that its classes exclude each other; use 'softmax'.")
        return logits.sigmoid()

    def warn_of_shares(self) -> None:
        """Warn where the softmax of these logits is not what the network says: it has a sigmoid for each class."""
        if self.form == "independent probabilities":
            caution(
                "The network ends with a sigmoid for each class, and the probabilities here are not those: they are a softmax's, "
                "as if the classes excluded each other; explain(..., confidence='sigmoid') gives the network's own, as does the "
                "sigmoid of a prediction's logits."
            )

    def warn_of_rounding(self, logits: Tensor, classes: Tensor) -> None:
        """Warn where the network is so sure of one of these classes (N, T) that it does not show how the score may change."""
        own, rounding = logits.gather(1, classes), torch.finfo(logits.dtype).eps
        if self.score == "log-probability" and self._last != {"log_sigmoid_forward"}:  # which PyTorch keeps exact
            highest = -SUREST if self._exact else -SURE * rounding
        elif self.form in ("one probability", "one log-probability") and self._last != {"sigmoid"}:
            own, highest = logits[:, 1], -log(SURE * rounding) / 2
        elif self.form in ("one probability", "independent probabilities"):
            highest = -log(rounding) / (1 + classes_of_one(self.form))  # behind it there is little but 1
        else:
            return
        if (own > highest).any():
            caution(
                "The network is so sure of some images, by a probability that can hardly be told from 1, that their maps are "
                "mostly rounding, or empty; let it return what goes into its last softmax or sigmoid."
            )

    def _form(self, values: Tensor, images: Tensor, rounding: float) -> str:
        """What the values (N, C) of the first batch are, from a type of this relative rounding."""
        classes = values.shape[1]
        unit = bool(((values >= 0) & (values <= 1)).all())
        # Rounding moves the sum of a row by at most `rounding`, and that of log-probabilities by as much times their entropy.
        tolerance = max(TOLERANCE, rounding * (1 + log(classes)))
        sums = (values.sum(dim=1) - 1).abs()
        totals = values.logsumexp(dim=1).abs()
        seems = ""
        if classes > 1 and unit and bool((sums < tolerance).all()):
            seems = "probabilities"
        elif classes > 1 and bool((totals < tolerance).all()):
            seems = "log-probabilities"
        plain = "one logit" if classes == 1 else "logits"
        if not seems and not unit and bool((values > 0).any()):
            return plain
        behind = self._last_operations(images, bool(seems))
        self._last, only = behind, next(iter(behind)) if len(behind) == 1 else ""
        # Logits of a sure network may be 0 and far below: read as they are in both cases, but of another name.
        if seems == "log-probabilities" and behind and all(is_linear(name) and name != "logsumexp" for name in behind):
            seems = ""
        # The rows of a few images, such as of one, may add up to one by chance.
        if seems and ("softmax" in only or self._always(images, "log" in seems, tolerance, behind)):
            return seems
        if only == OVER_ONE:
            raise ValueError(
                "The model ends with a softmax over one output, which is 1 for every image; use a sigmoid, or two outputs."
            )
        if unit and only == "sigmoid":
            return "one probability" if classes == 1 else "independent probabilities"
        if "softmax" in only:
            if classes == 1:
                return "one log-probability" if "log" in only else "one probability"
            if bool(((totals if "log" in only else sums) < ROUNDED).all()):
                return "log-probabilities" if "log" in only else "probabilities"
        # A logarithm of a probability is never positive, so that one of them, read as a logit, would always mean class 0.
        logarithms = [name for name in behind if "log_s" in name and ("sigmoid" in name or name == only or classes == 1)]
        if only == "log" or logarithms or (unit and not all(is_linear(name) for name in behind)):
            seen = "logarithms of probabilities" if only == "log" or logarithms else "values in [0, 1]"
            seen += " whose rows do not add up to one" if classes > 1 and "sigmoid" not in "".join(logarithms) else ""
            made = ", ".join(sorted(behind))
            raise ValueError(
                f"The model returns {seen}, made by {made}: they look like probabilities, and read as logits would give wrong "
                "classes; let it return the logits, or end it with a plain sigmoid or softmax of the logits."
            )
        return plain

    def _last_operations(self, images: Tensor, seems_clear: bool) -> frozenset[str]:
        """The names of the operations that the output is made of, found in one more pass of one image.

        None where the network takes no single image, and its output seems clear without them.
        """
        try:
            with Operations() as operations, torch.no_grad():
                output = found_logits(self.network(images[:1].clone()), 1)
        except Exception:
            if seems_clear:
                return frozenset()
            raise
        return operations.of(output)

    def _always(self, images: Tensor, logarithms: bool, tolerance: float, behind: frozenset[str]) -> bool:
        """Whether probabilities add up to one for other images too, made of the first one, as far as the network takes them."""
        if behind == {"sigmoid"}:
            tolerance = COMPLEMENT
        one = images[:1]
        ramp = torch.linspace(-1, 1, one.numel(), dtype=one.dtype, device=one.device).view_as(one)
        try:
            with torch.no_grad():
                values = found_logits(self.network(torch.cat([-one, one / 2, one + ramp, ramp])), 4).float()
        except Exception:
            return True
        sums = values.logsumexp(dim=1).abs() if logarithms else (values.sum(dim=1) - 1).abs()
        return bool((sums < tolerance).all())


def classes_of_one(form: str | None) -> bool:
    """Whether two classes are made of one output."""
    return form in ("one logit", "one probability", "one log-probability")


def found_logits(output: object, count: int) -> Tensor:
    """The one tensor (count, C) in what a network returned for `count` images; `ValueError` where there is none, or several."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            if output.ndim in (0, 1) and output.numel() == count:
                return output.reshape(count, 1)
            if _plausible(output, count):
                return output.flatten(1)
        given = f"{tuple(output.shape)}{'' if output.is_floating_point() else f' of {output.dtype}'}"
        raise ValueError(f"The model must return logits of shape ({count}, classes), not {given}.")
    found = plausible_logits(output, count)
    named = [path for path in found if path in ("['logits']", ".logits")]
    if len(found) == 1 or named:
        return found[named[0] if named else next(iter(found))].flatten(1)
    kind = type(output).__name__
    if found:
        several = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in found.items())
        problem, path = f"a {kind} in which {len(found)} tensors may be the logits: {several}", next(iter(found))
    else:
        tensors = list(tensors_in(output, ""))[:5]
        held = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in tensors) or "no tensors"
        problem, path = f"a {kind} without logits of shape ({count}, classes): it holds {held}", "[0]"
    raise ValueError(
        f"The model returns {problem}; wrap it in a module whose forward returns the logits alone, such as "
        f"`return self.model(images){path}`."
    )


def plausible_logits(output: object, count: int) -> dict[str, Tensor]:
    """The tensors in what a network returned for `count` images that may be logits, by the way to each, such as "[0]"."""
    return {path: tensor for path, tensor in tensors_in(output, "") if _plausible(tensor, count)}


def _plausible(tensor: Tensor, count: int) -> bool:
    """Whether a tensor is (count, C), or that with empty axes behind."""
    shape = tuple(tensor.shape)
    return tensor.is_floating_point() and len(shape) in (2, 4) and shape[0] == count and shape[1] > 0 and set(shape[2:]) <= {1}


def predicted_logits(
    model: nn.Module, batches: Iterable[Tensor], device: torch.device, precision: str = "fp32", flip: bool = False
) -> np.ndarray:
    """The model's logits float32 (N, C) of batches of normalised images, in evaluation mode; `flip` as for `predict`.

    What is read as logits is told in `LogitReader`: one output is two classes, of probabilities the logarithms are taken.
    """
    logits, read = [], LogitReader(model)
    dtype = next((weights.dtype for weights in model.parameters() if weights.is_floating_point()), torch.float32)
    with evaluation_mode(model), torch.inference_mode(), autocast(device, precision):
        for batch in batches:
            images = batch.to(dtype)
            output = read(images).float()
            if flip:
                output = (output + read(images.flip(3)).float()) / 2
            logits.append(output.cpu())
    read.warn_of_shares()
    return torch.cat(logits).numpy()


def logits_problem(logits: np.ndarray, classes: int) -> str:
    """Why logits (N, C) say nothing of so many classes: "" where they do."""
    if logits.shape[1] != classes:
        return f"the network has {logits.shape[1]} outputs for {classes} class names; give one each."
    if not np.isfinite(logits).all():
        return "the network's logits are NaN or infinite, so nothing can be predicted; check its weights."
    return ""
