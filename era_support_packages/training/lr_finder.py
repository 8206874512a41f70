"""The learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks") on torch-lr-finder."""

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FunctionType, MethodType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.models.modes import HeldNorms
from era_support_packages.system.machine import keep_freed_memory, resolve_device
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.system.progress import progress_bar
from era_support_packages.training.config import PreparedConfig, ResolvedConfig
from era_support_packages.training.cost import predicted_seconds, seconds_per_image
from era_support_packages.training.lr_curve import smooth, suggest
from era_support_packages.training.lr_trials import FEWEST_STEPS, Trials, trial_images, try_rates
from era_support_packages.training.presets import PRESETS
from era_support_packages.training.resolution import require_type
from era_support_packages.training.resources import use_resources
from era_support_packages.training.setup import build_batches, build_optimizer
from era_support_packages.training.sharing import parallel_network, settled_config, share_size
from era_support_packages.training.trainable import require_trainable

SUGGESTIONS = ("steepest", "valley", "minimum/10")
MINIMUM_ITERATIONS = 20


@dataclass(frozen=True, eq=False)
class RangeTest(Readable):
    """A loss curve over exponentially growing learning rates and what it suggests.

    lrs, losses (as measured, all finite), smoothed: float64 (K,). suggestions: "steepest", "valley" and "minimum/10" to a
    learning rate; empty where the curve never falls. For `max_lr="auto"` also trials: the results of short trainings
    at a few rates. If the run is too_short for them, or learns by Muon, preset_rate is the rate of its preset, None where that
    has none either.

    >>> import numpy as np
    >>> from era_support_packages.training import RangeTest
    >>> losses = np.array([2.3, 2.2, 1.8, 1.9, 4.0])
    >>> result = RangeTest(np.geomspace(0.0001, 1, 5), losses, losses, {"valley": 0.005})  # as range_test gives it
    >>> print(result.reading())
    Over 5 steps from 0.0001 to 1 the loss suggests a peak learning rate of valley 0.005.
    """

    lrs: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestions: dict[str, float]
    trials: Trials | None = None
    too_short: bool = False
    preset_rate: float | None = None

    def suggestion(self, name: str = "valley") -> float:
        """One suggestion. Raises `ValueError` for an unknown name, or where the curve never falls."""
        if name not in SUGGESTIONS:
            raise ValueError(f"suggestion is {name!r}; choose one of {', '.join(map(repr, SUGGESTIONS))}.")
        if name not in self.suggestions:
            raise ValueError("The loss never fell in the range test, so it suggests nothing; give max_lr as a number.")
        return self.suggestions[name]

    @property
    def listed(self) -> str:
        """The suggestions in a line."""
        return ", ".join(f"{name} {value:.3g}" for name, value in self.suggestions.items()) or "no suggestion"

    def table(self) -> Table:
        """A row a suggestion; none where the loss never falls."""
        return Table((Column("suggestion"), Column("learning rate", ".3g")), tuple(self.suggestions.items()))

    def reading(self) -> str:
        """One sentence: over which rates the loss was watched, and what that suggests."""
        watched = f"Over {len(self.lrs)} steps from {self.lrs[0]:.3g} to {self.lrs[-1]:.3g}"
        if not self.suggestions:
            return f"{watched} the loss never fell, so that the test suggests nothing."
        return f"{watched} the loss suggests a peak learning rate of {self.listed}."


def choose_max_lr(config: PreparedConfig, result: RangeTest) -> tuple[ResolvedConfig, str]:
    """The configuration with a number for `max_lr`, and the sentence that says where it came from.

    "auto" takes the best of the trials. A run that is too short for them takes the preset's own rate, and so does one with Muon,
    for which they choose rates that are far too low. A test without trials,
    stored by an earlier version, gives the suggestion "valley". A number stays, and the sentence compares it with the
    suggestions. Raises `ValueError` where "auto" meets a curve that never falls, or a run that is too short and a preset that
    has no rate.

    >>> import numpy as np
    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import RangeTest, choose_max_lr, prepare_config
    >>> train, _ = load("digits")
    >>> losses = np.array([2.3, 2.2, 1.8, 1.9, 4.0])
    >>> result = RangeTest(np.geomspace(0.0001, 1, 5), losses, losses, {"valley": 0.005})  # as range_test gives it
    >>> config, sentence = choose_max_lr(prepare_config(TrainingConfig.preset("original"), train), result)
    >>> config.max_lr
    0.005
    >>> print(sentence)
    max_lr = 0.005, the range test's suggestion 'valley' (all: valley 0.005).
    """
    if config.max_lr != "auto":
        given = config.resolved()
        return given, f"max_lr = {given.max_lr:.3g} is given, so the range test is only shown for comparison: {result.listed}."
    if result.trials is not None:
        if not math.isfinite(result.trials.losses[result.trials.best]):
            raise ValueError(f"max_lr is 'auto'. {result.trials.reading()} Give max_lr as a number.")
        found = config.resolved(result.trials.best)
        return found, f"max_lr = {found.max_lr:.3g}. {result.trials.reading()} The curve alone suggests {result.listed}."
    if result.too_short:
        why = f"the run is too short to try learning rates: half of it must be {FEWEST_STEPS} steps or more"
        if config.optimizer == "muon":  # whose short trials chose a tenth of the best rate and less (benchmarks/README.md)
            why = "no short test tells how high a rate Muon takes in a whole run"
        if result.preset_rate is None:
            raise ValueError(f"max_lr is 'auto', but {why}, and its preset has no rate of its own. Give max_lr as a number.")
        found = config.resolved(result.preset_rate)
        return found, f"max_lr = {found.max_lr:.3g}, the preset's own: {why}."
    found = config.resolved(result.suggestion())
    return found, f"max_lr = {found.max_lr:.3g}, the range test's suggestion 'valley' (all: {result.listed})."


class _NotFiniteError(Exception):
    """Ends the test at the first loss that is not a number; the library would go on to the last iteration."""


def range_test(
    model: nn.Module,
    train: ImageDataset,
    test_size: int,
    config: PreparedConfig,
    start_lr: float | None = None,
    end_lr: float | None = None,
    processes: Processes = ALONE,
) -> RangeTest:
    """Train for some steps while the learning rate grows exponentially from `start_lr` to `end_lr`, and record the loss.

    Where they are left out it grows from 1e-4 to 10, with AdamW from 1e-6 to 0.1. All of the network learns.

    Where `max_lr` is "auto" short trials then say which rate trains best, climbing from the one with the lowest loss: the curve
    of a network that has just begun is too noisy to follow. With Muon there are none, as they mislead. Curve and trials show at
    most a fifth of the run's images, or 4,000 where that is more, and never over half of them.

    Batch size, resolution (the plan's first), augmentation, precision and optimizer are those of the run. On a CPU the
    iterations are cut to a fifth of the predicted time of the run (of `test_size` test images), but not below 20. It works on
    a copy of the model and leaves the random state as it was, so nothing of the caller's changes, whatever happens midway.
    Several `processes` make it together on their shares of each batch; its losses are their mean, and all get the first's result.

    Raises `ValueError` where not 0 < start_lr < end_lr, and for a network that gives no logits for these classes.

    >>> from torch import nn
    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import prepare_config, range_test
    >>> train, test = load("digits")
    >>> config = prepare_config(TrainingConfig.preset("smoke"), train)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))  # of images of 16 px
    >>> result = range_test(network, train, len(test), config, end_lr=0.1)
    >>> len(result.lrs)
    20
    """
    require_type(config, PreparedConfig)
    usual_start, usual_end = (1e-6, 0.1) if config.optimizer == "adamw" else (1e-4, 10.0)
    start_lr, end_lr = usual_start if start_lr is None else start_lr, usual_end if end_lr is None else end_lr
    if not 0 < start_lr < end_lr:
        raise ValueError(f"The range is {start_lr!r} to {end_lr!r}; give 0 < start_lr < end_lr.")
    config = settled_config(config, processes)
    device = resolve_device(config.device)
    at_any_rate = config.resolved(0.01 if config.max_lr == "auto" else config.max_lr)  # their proportions are what counts
    with use_resources(config), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        require_trainable(model, train, at_any_rate)
        iterations = config.range_test_iterations
        if device.type == "cpu":
            keep_freed_memory()
            image_seconds = processes.from_first(seconds_per_image(model, at_any_rate, processes))
            fifth = predicted_seconds(config, config.planned_epochs(len(train)), test_size, image_seconds) / 5
            iterations = min(iterations, max(MINIMUM_ITERATIONS, int(fifth / (image_seconds * config.batch_size))))
        batch_size, allowed = min(config.batch_size, len(train)), trial_images(config, len(train))
        if config.max_lr == "auto" and allowed:
            iterations = min(iterations, max(MINIMUM_ITERATIONS, allowed // 4 // batch_size))
        twin = copy.deepcopy(model)
        curve_of = (twin, train, at_any_rate, device, start_lr, end_lr, iterations, processes)
        lrs, losses = processes.from_first(_library_range_test(*curve_of))
    smoothed = smooth(losses)
    curve = RangeTest(lrs, losses, smoothed, suggest(lrs, smoothed))
    if config.max_lr != "auto" or not curve.suggestions:
        return curve
    if not allowed or config.optimizer == "muon":
        return replace(curve, too_short=True, preset_rate=PRESETS.get(config.preset_name, {}).get("max_lr"))
    lowest = float(lrs[smoothed.argmin()])
    left = allowed - len(losses) * batch_size
    return replace(curve, trials=try_rates(model, train, at_any_rate, lowest, left, processes))


def _library_range_test(
    model: nn.Module,
    train: ImageDataset,
    config: ResolvedConfig,
    device: torch.device,
    start_lr: float,
    end_lr: float,
    iterations: int,
    processes: Processes,
) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates and raw losses up to the last finite one, float64."""
    with warnings.catch_warnings():  # without ipywidgets its import warns into the notebook
        warnings.simplefilter("ignore")
        from torch_lr_finder import LRFinder, TrainDataLoaderIter

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        if processes.count > 1:  # the gradient of its own images, the value of all
            loss = processes.mean(loss.detach()) + (loss - loss.detach())
        if not math.isfinite(loss.item()):
            raise _NotFiniteError
        return loss

    size = share_size(max(2, min(config.batch_size, len(train))), processes)
    batches = build_batches(train, config.replace(batch_size=size), processes)
    epoch = batches.epoch(config.resolutions[0][0], 0, iterations * batches.batch_size)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    amp = {}
    if precision is not None:
        amp = {
            "amp_backend": "torch",
            "amp_config": {"device_type": device.type, "dtype": precision},
            "grad_scaler": torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        }
    optimizer = build_optimizer(model, config)
    _raise_together(optimizer)
    network = HeldNorms(model) if config.freeze_norms else model
    finder = LRFinder(parallel_network(network, config, processes), optimizer, criterion, device=device, **amp)
    run = _with_our_bar(finder.range_test)
    with contextlib.suppress(_NotFiniteError):
        run(TrainDataLoaderIter(epoch), start_lr=start_lr, end_lr=end_lr, num_iter=iterations, smooth_f=0)
    lrs, losses = np.array(finder.history["lr"]), np.array(finder.history["loss"])
    return lrs[: len(losses)], losses


def _raise_together(optimizer: torch.optim.Optimizer) -> None:
    """Let the groups' learning rates rise in the proportions of the recipe, where the library gives all of them the same."""
    first, *others = optimizer.param_groups
    shares = [(group, group["lr"] / first["lr"]) for group in others]

    def scale(*_: object) -> None:
        for group, share in shares:
            group["lr"] = share * first["lr"]

    optimizer.register_step_pre_hook(scale)


def _with_our_bar(method: MethodType) -> MethodType:
    """The library's own range test with our bar as its `tqdm` and nothing printed; it offers no way to choose either."""
    function = method.__func__
    names = {**function.__globals__, "tqdm": _bar, "print": lambda *_: None}
    return MethodType(FunctionType(function.__code__, names, argdefs=function.__defaults__), method.__self__)


def _bar(iterations: range) -> Iterator[int]:
    with progress_bar(len(iterations), "range test", "batch") as bar:
        for iteration in iterations:
            yield iteration
            bar.update()
