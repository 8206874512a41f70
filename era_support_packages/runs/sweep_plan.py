"""What a sweep is to do: which values with which seeds, checked as a whole before anything runs. Imports no PyTorch."""

import hashlib
import importlib.util
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from era_support_packages.runs.sweep_values import PRESET, Choice, Space, SweepError
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.presets import PRESETS, named_preset

MOST_COMBINATIONS = 1000
INSTALL = 'pip install "optuna>=4"'
_OF_NO_ACCOUNT = ("output_dir", "device", "workers", "threads", "cuda_graph", "skip_broken", "tracker")


def has_optuna() -> bool:
    """Whether Optuna is installed; it is not imported."""
    try:
        return importlib.util.find_spec("optuna") is not None
    except ValueError:
        return False


@dataclass(frozen=True)
class SweepPlan:
    """Values to vary, the seeds of each combination, and what is the same for all trials.

    fixed: values of the configuration by name, `validation` among them. trials: how many combinations a search draws from the
    space; None takes all of it.
    """

    space: Space
    seeds: tuple[int, ...]
    fixed: Mapping[str, Any]
    preset: str = "auto"
    trials: int | None = None

    def check(self) -> None:
        """Raise `SweepError` where there is nothing to choose, a value is given twice, any trial's values cannot be used, or a
        search has no Optuna.

        Of a search every combination of its ranges' ends is tried.
        """
        twice = [name for name in self.space if name != PRESET and self.fixed.get(name) is not None]
        if PRESET in self.space and self.preset != "auto":
            twice.insert(0, PRESET)
        if twice:
            raise SweepError(" ".join(f"{name} is given twice, by itself and by -p: give it once." for name in twice))
        if not self.fixed.get("validation"):
            raise SweepError("validation is 0: a sweep chooses by training images held out, so give a share such as 0.1.")
        count = math.prod(len(found.ends) for found in self.space.values())
        if count < 2:
            raise SweepError("There is nothing to choose: give -p NAME VALUES with two values or more, such as -p cutout 0,8.")
        if count > MOST_COMBINATIONS and self.trials is None:
            raise SweepError(
                f"These values make {count:,} combinations, and at most {MOST_COMBINATIONS:,} are tried one by one: give fewer, "
                "or --search N to try N of them."
            )
        if self.trials is not None and not has_optuna():
            raise SweepError(f"A search needs Optuna, which is not installed: install it with `{INSTALL}`.")
        problems = dict.fromkeys(
            problem
            for values in itertools.islice(self.corners(), MOST_COMBINATIONS)
            if (problem := self._problem(values)) is not None
        )
        if problems:
            raise SweepError(" ".join(problems))

    def _problem(self, values: Mapping[str, Any]) -> str | None:
        preset = values.get(PRESET) or self.preset
        try:
            self.config(named_preset(preset, {**self.fixed, **values}), values, self.seeds[0])
        except ValueError as error:
            return str(error)
        return None

    def corners(self) -> Iterator[dict[str, Any]]:
        """Every combination of the values, and of the ends of ranges."""
        for ends in itertools.product(*(found.ends for found in self.space.values())):
            yield dict(zip(self.space, ends, strict=True))

    def overrides(self, values: Mapping[str, Any], seed: int, final: bool = False) -> dict[str, Any]:
        """What changes the preset for one run: of a trial, or of the last training on all images."""
        own = {name: value for name, value in values.items() if name != PRESET}
        last = {"validation": 0.0} if final else {"final_test": False}
        return {**self.fixed, **own, "seed": seed, **last}

    def config(self, preset: str, values: Mapping[str, Any], seed: int, final: bool = False) -> TrainingConfig:
        """What is asked for with these values. Raises `ValueError` for values that cannot be used."""
        return TrainingConfig.preset(preset, **self.overrides(values, seed, final))

    def with_preset(self, preset: str) -> "SweepPlan":
        """The same plan with "auto" answered: all trials have one preset, whatever they vary."""
        if PRESET not in self.space:
            return replace(self, preset=preset)
        presets = dict.fromkeys(preset if value in (None, "auto") else value for value in self.space[PRESET].ends)
        return replace(self, space={**self.space, PRESET: Choice(tuple(presets))})

    def combinations(self) -> tuple[dict[str, Any], ...]:
        """All combinations, without those that come to the same configuration as one before."""
        found: dict[TrainingConfig, dict[str, Any]] = {}
        for values in self.corners():
            found.setdefault(self.config(values.get(PRESET, self.preset), values, self.seeds[0]), values)
        return tuple(found.values())

    def name(self, dataset: str, digest: str) -> str:
        """The sweep's name, which changes with all that decides its result, the number of a search's trials aside: also with the
        values of its presets, so that no search goes on with trials of an older recipe.

        dataset, digest: short name and fingerprint of the data.
        """
        values = {name: value for name, value in self.fixed.items() if name not in _OF_NO_ACCOUNT and value is not None}
        space = {name: repr(found) for name, found in self.space.items()}
        recipes = [PRESETS.get(preset) for preset in (self.space[PRESET].ends if PRESET in self.space else (self.preset,))]
        known = [self.preset, sorted(values.items()), sorted(space.items()), self.seeds, digest, self.trials is None, recipes]
        return f"sweep-{dataset}-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:6]}"
