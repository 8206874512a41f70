"""What a sanity check found: similarities of maps before and after redrawing weights, and the verdicts that follow.

The limits are fixed beforehand, whatever the network.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from era_support_packages.evaluation.intervals import Interval
from era_support_packages.evaluation.tables import Column, Readable, Table

MAX_EXCESS = 0.1
"""How far the correlation with the trained network's maps may lie above that between two random networks' maps."""
MAX_CORRELATION = 0.7
"""How far the former may reach at all: above it (0.7 squared is 0.49) the image alone decides most of a map's ranks."""
UNCHANGED = 0.99
"""From this mean correlation on, maps count as unchanged after redrawing only the output layer."""
FEWEST_IMAGES = 5
"""No verdict on fewer images than this: a bootstrap of so few values says nothing."""
SURER = 0.05
"""A network that has learned something is surer than random ones by more than this share of what is missing to certainty."""
RESAMPLES = 2000
_CAPTION = (
    "correlation: of random networks' maps with the trained network's, by ranks, at most "
    f"{MAX_CORRELATION}. excess: that less the correlation between two random networks, at most {MAX_EXCESS}. In brackets 95 % "
    "intervals: a map passes where both keep to their limits, and fails where one lies beyond."
)

LIMITS = (
    "Passing says that a map depends on the learnt weights, not that it is right: noise that changes with the weights passes "
    "too, and so do guided backpropagation and maps that are edges in part, as long as they change enough. And since strong "
    "activations of the layers below stay strong under redrawn layers, a faithful map may change little before the last "
    "stages, so the curves do not rank methods (Binder et al. 2023, arXiv:2211.12486)."
)


@dataclass(frozen=True)
class Verdict:
    """Whether the maps of one method at one layer depend on what was learnt.

    outcome: "passes" where the upper ends of both intervals keep to their limits (`MAX_CORRELATION` for `correlation`,
    `MAX_EXCESS` for `excess`), "fails" where a lower end lies above its limit, else "undecided". Both are needed: what looks
    only at the image has no excess, since it resembles itself in every network.

    >>> from era_support_packages.evaluation import Interval
    >>> from era_support_packages.trust.sanity import Verdict
    >>> intervals = (Interval(0.31, 0.22, 0.4), Interval(0.29, 0.2, 0.38), Interval(0.02, -0.04, 0.08))
    >>> verdict = Verdict("gradcam", "layer4", "passes", True, *intervals, usable=24, count=24)  # one of `SanityCheck.verdicts`
    >>> verdict.why
    'changes with the weights'
    """

    method: str
    layer: str
    """empty for a method that has none"""
    outcome: str
    class_specific: bool
    """False where redrawing only the output layer leaves the maps as they were"""
    correlation: Interval
    """of the maps of fully random networks with the trained network's"""
    between_random: Interval
    """of the maps of two fully random networks with each other"""
    excess: Interval
    """the former less the latter, paired by image"""
    usable: int
    """images whose maps are not constant in some draw, which the intervals are about"""
    count: int

    @property
    def name(self) -> str:
        """The method, and its layer where it has one."""
        return f"{self.method} at {self.layer}" if self.layer else self.method

    @property
    def enough(self) -> bool:
        """Whether enough images have maps that are not constant."""
        return self.usable >= max(FEWEST_IMAGES, self.count / 2)

    @property
    def why(self) -> str:
        """The reason of the outcome, in a few words."""
        if not self.enough:
            return "too many constant maps"
        if self.outcome == "undecided":
            return "limit inside the interval"
        if self.outcome == "fails":
            return "image decides its ranks" if self.correlation.low > MAX_CORRELATION else "more alike than by chance"
        return "changes with the weights" if self.class_specific else "changes, but has no class"

    def reading(self) -> str:
        """The verdict in words, with its numbers."""
        if not self.enough:
            text = f"{self.name} is undecided: only {self.usable} of {self.count} images have maps that are not constant."
        else:
            verb = "is undecided" if self.outcome == "undecided" else self.outcome
            text = (
                f"{self.name} {verb}: random networks' maps have a rank correlation of "
                f"{_interval_text(self.correlation, MAX_CORRELATION)} with the trained network's and of "
                f"{self.between_random.estimate:.2f} with each other, a difference of {_interval_text(self.excess, MAX_EXCESS)}."
            )
            if self.outcome == "undecided":
                text += " An interval reaches across its limit: take more draws or images."
        if not self.class_specific:
            text += " It is not class-specific: redrawing only the output layer leaves its maps as they were."
        return text


@dataclass(frozen=True, eq=False)
class SanityCheck(Readable):
    """Maps of N images before and after S stages of redrawn weights, in D draws, for R rows: a method at a layer each.

    Similarities are NaN where one of the two maps is constant, since it has no ranks, and at the stages before the last in
    the draws that are not a cascade.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.sanity import sanity_check
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> check = sanity_check(classifier, test, train, count=4, train_count=16, draws=2)
    >>> [(verdict.name, verdict.outcome) for verdict in check.verdicts]
    [('gradcam at 1', 'undecided'), ('eigencam at 1', 'undecided')]
    """

    methods: tuple[str, ...]
    """R names"""
    layers: tuple[str, ...]
    """R names; empty for a method that has no layer"""
    stages: tuple[str, ...]
    """S names, from the output back; each stage is redrawn on top of those before it"""
    targets: np.ndarray
    """int64 (N,): the classes explained, at all stages those that the trained network predicts"""
    correlations: np.ndarray
    """float64 (R, S, D, N) in [-1, 1]: Spearman's rank correlation of the maps with the trained network's, tied ranks averaged"""
    ssim: np.ndarray
    """float64 (R, S, D, N) in [-1, 1]: structural similarity with the trained network's maps, for a data range of 1"""
    random_correlations: np.ndarray
    """float64 (R, P, N): rank correlation between fully random networks, for the P pairs of draws"""
    constant: np.ndarray
    """float64 (R, S + 1) in [0, 1]: the share of constant maps, of the trained network and after each stage"""
    maps: np.ndarray
    """float32 (R, S + 1, N, H, W) in [0, 1]: of the trained network, then after each stage of the first draw"""
    ssim_window: int
    """side of the square window of structural similarity, in pixels, uniformly weighted"""
    training_images: int
    """how many images the batch-norm statistics were estimated on"""
    seed: int
    confidence: float = math.nan
    """mean probability of the class predicted, of the trained network with batch-norm statistics estimated as the others' are"""
    random_confidences: np.ndarray | None = None
    """float64 (D,): that of each fully random network"""
    images: np.ndarray | None = None
    """uint8 (N, H, W, 3): the images as the network saw them, which figures show; None where only numbers are wanted"""
    names: tuple[str, ...] = ()
    """of the class of each of them"""

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """R verdicts; each interval is at 95 % by itself, over networks and images as `_resamples` draws them."""
        return tuple(self._verdict(row) for row in range(len(self.methods)))

    def table(self) -> Table:
        """A row for each method and layer: the verdict, the two numbers that it rests on, and why."""
        columns = (Column("method"), Column("layer"), Column("verdict"), Column("correlation", ".2f"), Column("excess", ".2f"))
        rows = ((v.method, v.layer, v.outcome, v.correlation, v.excess, v.why) for v in self.verdicts)
        return Table((*columns, Column("why")), tuple(rows), _CAPTION)

    def reading(self) -> str:
        """How many pass, which do not, and which say nothing of the class: one sentence."""
        named = {outcome: [v.name for v in self.verdicts if v.outcome == outcome] for outcome in ("undecided", "fails")}
        passing = len(self.verdicts) - sum(map(len, named.values()))
        parts = [f"{passing} of {len(self.verdicts)} maps pass{'es' if passing == 1 else ''}"]
        if names := named["undecided"]:
            verb = "is" if len(names) == 1 else "are"
            parts.append(f"{len(names)} {verb} undecided ({', '.join(names)}), for which more draws or images are needed")
        if names := named["fails"]:
            parts.append(f"{len(names)} fail{'s' if len(names) == 1 else ''} ({', '.join(names)})")
        unspecific = list(dict.fromkeys(v.method for v in self.verdicts if not v.class_specific))
        text = "; ".join(parts)
        if unspecific:
            verb = "is" if len(unspecific) == 1 else "are"
            text += f"; {' and '.join(unspecific)} {verb} not class-specific: redrawing only the output layer changes no map"
        return f"{text}.{' ' * bool(self.remark)}{self.remark}"

    @property
    def remark(self) -> str:
        """A sentence where the network seems to have learned nothing, so that its maps cannot tell; else empty."""
        if self.random_confidences is None:
            return ""
        highest = float(self.random_confidences.max())
        if self.confidence > highest + SURER * (1 - highest):
            return ""
        return (
            f"The network itself is hardly surer of its predictions ({self.confidence:.0%} on average) than random networks are "
            f"(up to {highest:.0%}), as one that has learned nothing: passing then says nothing, for one random network differs "
            "from another."
        )

    def curve(self, row: int) -> tuple[Interval, ...]:
        """S means of the rank correlation with the trained network's maps, with 95 % intervals over networks and images.

        NaN where every map is constant.
        """
        networks, images = _resamples(*self.correlations.shape[2:])
        return tuple(_interval(_over_networks(values, networks), images) for values in self.correlations[row])

    def between_random(self, row: int) -> Interval:
        """The mean rank correlation between two fully random networks, with its 95 % interval."""
        networks, images = _resamples(*self.correlations.shape[2:])
        return _interval(_over_networks(self.random_correlations[row], _pairs(networks)), images)

    def _verdict(self, row: int) -> Verdict:
        networks, images = _resamples(*self.correlations.shape[2:])
        trained = _over_networks(self.correlations[row, -1], networks)
        between = _over_networks(self.random_correlations[row], _pairs(networks))
        difference = trained - between  # within each image; NaN where the maps of one side are constant
        correlation, excess = _interval(trained + 0 * difference, images), _interval(difference, images)
        usable, count = int(np.isfinite(difference[0]).sum()), len(self.targets)
        outcome = "undecided"
        if usable >= max(FEWEST_IMAGES, count / 2):
            if correlation.high <= MAX_CORRELATION and excess.high <= MAX_EXCESS:
                outcome = "passes"
            elif correlation.low > MAX_CORRELATION or excess.low > MAX_EXCESS:
                outcome = "fails"
        return Verdict(
            method=self.methods[row],
            layer=self.layers[row],
            outcome=outcome,
            class_specific=not self.curve(row)[0].estimate >= UNCHANGED,
            correlation=correlation,
            between_random=_interval(between + 0 * difference, images),
            excess=excess,
            usable=usable,
            count=count,
        )


def _resamples(networks: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each network and each image counts: (1 + B, D) and (1 + B, N), once each and then in B bootstrap samples.

    Networks and images are drawn with replacement, independently of each other ("pigeonhole bootstrap", Owen 2007,
    doi:10.1214/07-AOAS122): to draw images alone would take the few random networks for all there are.
    """
    generator = np.random.default_rng(0)
    drawn = (generator.multinomial(size, np.full(size, 1 / size), RESAMPLES) for size in (networks, count))
    for_networks, for_images = (np.concatenate([np.ones((1, rows.shape[1]), np.int64), rows]) for rows in drawn)
    return for_networks, for_images


def _pairs(networks: np.ndarray) -> np.ndarray:
    """How often each pair of different networks counts: (1 + B, P)."""
    first, second = np.triu_indices(networks.shape[1], 1)
    return networks[:, first] * networks[:, second]


def _over_networks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of values (D, N) over networks with weights (1 + B, D), without NaN: (1 + B, N), NaN where nothing is left."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return (weights @ np.where(known, values, 0)) / (weights @ known)


def _interval(values: np.ndarray, weights: np.ndarray) -> Interval:
    """The mean over images, without NaN, of values (1 + B, N) with weights alike; the interval is that of the last B."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means = (np.where(known, values, 0) * weights).sum(axis=1) / (known * weights).sum(axis=1)
    drawn = means[1:][np.isfinite(means[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn.size else (math.nan, math.nan)
    return Interval(float(means[0]), float(low), float(high))


def _interval_text(interval: Interval, limit: float) -> str:
    return f"{interval.estimate:.2f} (95 % interval {interval.low:.2f} to {interval.high:.2f}, limit {limit})"
