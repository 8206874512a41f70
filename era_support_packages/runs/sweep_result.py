"""What came of a sweep: a row for each combination of values, the one that was chosen, and what the test split says of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

from era_support_packages.evaluation.intervals import CONFIDENCE, Interval
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.runs.entry import value_text

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class TrialRun:
    """One run of a sweep: accuracies in percent; `problem` says why it has none."""

    run: str
    seed: int
    seconds: float = 0.0
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    test_accuracy: float | None = None
    problem: str = ""


def _shown(value: Any) -> str:
    """A value as it is typed: a list as JSON."""
    return json.dumps(value) if isinstance(value, tuple | list) else value_text(value)


@dataclass(frozen=True)
class Combination:
    """Values that were tried together, with one run for each seed, or fewer where they were given up."""

    values: Mapping[str, Any]
    runs: tuple[TrialRun, ...]
    state: str = COMPLETE

    @property
    def accuracies(self) -> list[float]:
        """In percent of the validation images, by seed."""
        return [run.validation_accuracy for run in self.runs if run.validation_accuracy is not None]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return mean(self.accuracies)

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        losses = [run.validation_loss for run in self.runs if run.validation_loss is not None]
        return mean(losses) if losses else math.inf

    @property
    def text(self) -> str:
        """The values in a line."""
        return ", ".join(f"{name} {_shown(value)}" for name, value in self.values.items())

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps."""
        known = self.state == COMPLETE
        return {
            "values": dict(self.values),
            "state": self.state,
            "validation_accuracy": self.accuracy if known else None,
            "validation_loss": self.loss if known else None,
            "runs": [vars(run) for run in self.runs],
        }


@dataclass(frozen=True, eq=False)
class SweepResult(Readable):
    """A sweep that was run to its end.

    root: the folder of the runs. share: of the training images, held out to choose by. finals: the runs of the chosen values on
    all training images, the only ones that were tested.
    """

    name: str
    root: Path
    share: float
    seeds: tuple[int, ...]
    tried: tuple[Combination, ...]
    finals: tuple[TrialRun, ...] = ()

    @property
    def ranked(self) -> tuple[Combination, ...]:
        """Those trained to their end with every seed: the highest mean accuracy first, of equal ones the lowest loss."""
        return tuple(sorted((one for one in self.tried if one.state == COMPLETE), key=lambda one: (-one.accuracy, one.loss)))

    @property
    def chosen(self) -> Combination:
        """The first of `ranked`."""
        return self.ranked[0]

    @property
    def lead(self) -> Interval | None:
        """By how many points the chosen one is ahead of the next, with the 95 % interval of Student's t over their common seeds.

        A seed also draws the images held out, so that the two are compared seed by seed. The ends are NaN where no interval can
        be computed: with one seed, and where the difference is the same with each. None where there is no next one.
        """
        if len(self.ranked) < 2:
            return None
        best, second = ({run.seed: run.validation_accuracy for run in one.runs} for one in self.ranked[:2])
        pairs = [(best[seed], second.get(seed)) for seed in best]
        apart = [one - other for one, other in pairs if one is not None and other is not None]
        if not apart:
            return None
        points = mean(apart)
        error = stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        if error < 1e-9:  # they are equal, but for the last digits of a float
            return Interval(points, math.nan, math.nan)
        reach = float(t.ppf((1 + CONFIDENCE) / 2, len(apart) - 1)) * error
        return Interval(points, points - reach, points + reach)

    def table(self) -> Table:
        """A row for each combination, the best first."""
        names = list(dict.fromkeys(name for one in self.tried for name in one.values))
        columns = [*map(Column, names), Column("validation accuracy", ".2f"), Column("standard deviation", ".2f")]
        columns += [Column("validation loss", ".4f"), Column("seconds", ".0f"), Column("result")]
        rows = [self._row(one, names) for one in (*self.ranked, *(one for one in self.tried if one.state != COMPLETE))]
        several = len(self.seeds) > 1
        kept = [i for i, column in enumerate(columns) if several or column.name != "standard deviation"]
        of = f"the mean over the seeds {', '.join(map(str, self.seeds))}" if several else f"with seed {self.seeds[0]}"
        caption = f"validation accuracy: in percent of the training images held out, after the last epoch, {of}."
        return Table(tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows), caption)

    def _row(self, one: Combination, names: list[str]) -> tuple[Any, ...]:
        known, accuracies = one.state == COMPLETE, one.accuracies
        return (
            *(_shown(one.values[name]) if name in one.values else None for name in names),
            one.accuracy if known else None,
            stdev(accuracies) if known and len(accuracies) > 1 else None,
            one.loss if known else None,
            sum(run.seconds for run in one.runs),
            "chosen" if known and one is self.chosen else "" if known else one.state,
        )

    def reading(self) -> str:
        """Which values were chosen, by how much, whether that may be chance, and what the test split says."""
        best, seeds = self.chosen, len(self.seeds)
        by = f"mean validation accuracy over {seeds} seeds" if seeds > 1 else "validation accuracy"
        said = [f"Chosen by {by}: {best.text}, with {best.accuracy:.2f} %.", *self._runner_up()]
        failed = [one for one in self.tried if one.state == FAILED]
        if failed:
            problem = next((run.problem for run in failed[0].runs if run.problem), "")
            said.append(f"Failed: {'; '.join(one.text for one in failed)}. {problem}".strip())
        if tested := [run.test_accuracy for run in self.finals if run.test_accuracy is not None]:
            spread = f" (standard deviation {stdev(tested):.2f})" if len(tested) > 1 else ""
            mean_of = f"a mean of {mean(tested):.2f} %{spread} in {len(tested)} runs" if len(tested) > 1 else f"{tested[0]:.2f} %"
            names = ", ".join(run.run for run in self.finals)
            said.append(
                f"Trained again with these values on all training images, and tested: {mean_of} of the test split ({names})."
            )
        return " ".join(said)

    def _runner_up(self) -> list[str]:
        if (lead := self.lead) is None:
            return []
        said = f"The next, {self.ranked[1].text}, is {lead.estimate:.2f} points behind"
        if len(self.seeds) < 2:
            return [f"{said}; with one seed nothing tells whether that is chance (--seeds 0,1,2 would)."]
        if math.isnan(lead.low):
            return [f"{said} with each seed, which gives no interval: more seeds would tell whether that is chance."]
        interval = f"{said}, with a 95 % interval of {lead.low:+.2f} to {lead.high:+.2f} over the seeds"
        return [f"{interval}: {'more than chance' if lead.excludes(0) else 'it may be chance'}."]

    def _lead(self) -> dict[str, Any] | None:
        if (lead := self.lead) is None:
            return None
        low, high = (None if math.isnan(end) else end for end in (lead.low, lead.high))
        return {"next": dict(self.ranked[1].values), "points": lead.estimate, "low": low, "high": high}

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps; accuracies in percent, and in points `lead`, with its interval."""
        tested = [run.test_accuracy for run in self.finals if run.test_accuracy is not None]
        final = {
            "runs": [vars(run) for run in self.finals],
            "test_accuracy": mean(tested) if tested else None,
            "standard_deviation": stdev(tested) if len(tested) > 1 else None,
        }
        return {
            "sweep": self.name,
            "folder": str(self.root),
            "validation": self.share,
            "seeds": list(self.seeds),
            "chosen": self.chosen.to_dict(),
            "lead": self._lead(),
            "tried": [one.to_dict() for one in self.tried],
            "final": final,
        }
