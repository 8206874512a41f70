"""What a judgement of faithfulness found: scores by map, differences to the baselines, and whether there is a winner."""

import math
from dataclasses import dataclass

import numpy as np

from era_support_packages.evaluation.intervals import CONFIDENCE, Interval, mean_interval, paired_share_interval
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.gradcam import methods as cam
from era_support_packages.trust.faithfulness.metrics import METRICS, RANKING_METRICS, check_metric
from era_support_packages.trust.faithfulness.removal import curve_counts

RANDOM, GAUSSIAN, OTHER_IMAGE, PIXEL_NOISE = "random map", "centred Gaussian", "another image's map", "pixel noise"
BASELINES = (RANDOM, GAUSSIAN, OTHER_IMAGE)


@dataclass(frozen=True, eq=False)
class MapScores:
    """What the maps of one kind at one layer score on each of the N images."""

    name: str
    """the method, or one of `BASELINES`, or `PIXEL_NOISE`"""
    layer: str
    """the layer explained, or whose grid the baseline has; empty for pixel noise"""
    method: str
    """the method that made the map, also where it is another image's; else empty"""
    scores: dict[str, np.ndarray]
    """float64 (N,) by the keys of `METRICS`"""
    deletion_curves: np.ndarray
    """float64 (N, K): confidence as the most relevant pixels are set to the mean colour"""
    insertion_curves: np.ndarray
    """float64 (N, K): confidence as the most relevant pixels are set into the blurred image"""
    constant: int
    """maps with one value everywhere: they mark nothing, and their pixels come in a drawn order"""
    patches: tuple[int, int] | None = None
    """rows and columns of the patches that were removed as wholes; None where single pixels were"""

    @property
    def title(self) -> str:
        """What it is, without the layer: "Grad-CAM", "random map", "Grad-CAM of another image"."""
        if not self.method:
            return self.name
        title = cam.METHODS[self.method].title
        return f"{title} of another image" if self.name == OTHER_IMAGE else title

    @property
    def label(self) -> str:
        """With the layer: "Grad-CAM layer3"."""
        return f"{self.title} {self.layer}".rstrip()


@dataclass(frozen=True, eq=False)
class Faithfulness(Readable):
    """The scores of methods and baselines on the same N images, and how sure the differences are.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.faithfulness import evaluate
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> result = evaluate(classifier, test, count=2, layers=["1"], steps=2, percentiles=[50])
    >>> [(row.title, row.scores["road"].shape) for row in result.methods]
    [('Grad-CAM', (2,)), ('HiResCAM', (2,))]
    """

    methods: tuple[MapScores, ...]
    """each method at each layer"""
    baselines: tuple[MapScores, ...]
    """a random map and a centred Gaussian for each layer, another image's map for each method and layer, pixel noise"""
    targets: np.ndarray
    """int64 (N,): the classes explained"""
    confidences: np.ndarray
    """float64 (N,): softmax probability of these on the untouched images"""
    shares: np.ndarray
    """float64 (K,) from 0 to 1: the share of pixels removed or inserted at each point of the curves; see `shares_of`"""
    percentiles: tuple[float, ...]
    """of ROAD: at percentile p, 100 - p percent of the pixels are removed"""
    other_images: np.ndarray
    """int64 (N,): whose map each image borrows; one cycle through all images, so that none borrows its own"""
    seed: int

    def __len__(self) -> int:
        return len(self.targets)

    def shares_of(self, scores: MapScores) -> np.ndarray:
        """`shares` as they were with whole patches: float64 (K,), those of the curves of `scores`."""
        if scores.patches is None:
            return self.shares
        units = scores.patches[0] * scores.patches[1]
        return curve_counts(units, len(self.shares) - 1) / units

    def baselines_of(self, scores: MapScores) -> tuple[MapScores, ...]:
        """The three baselines on the grid of a method's layer, in the order of `BASELINES`."""
        found = {row.name: row for row in self.baselines if row.layer == scores.layer and row.method in ("", scores.method)}
        return tuple(found[name] for name in BASELINES)

    def advantage(self, scores: MapScores, other: MapScores, metric: str, comparisons: int = 1) -> Interval:
        """The mean by which `scores` is better than `other`, paired by image, with its interval from `mean_interval`.

        Of a metric that is yes or no for each image the interval is that of `paired_share_interval`. Positive is better, whatever
        the metric; the unit is that of the metric. `comparisons`: of how many intervals this is one.
        """
        check_metric(metric)
        one, two = other.scores[metric], scores.scores[metric]
        if not METRICS[metric].higher_is_better:
            one, two = two, one
        if METRICS[metric].yes_or_no:
            return paired_share_interval(one > 0, two > 0, comparisons)
        return mean_interval(two - one, comparisons, seed=self.seed)

    def over_baselines(self, scores: MapScores, metric: str) -> dict[str, Interval]:
        """The advantage over each baseline by its name, corrected for all comparisons of a method's maps with a baseline."""
        comparisons = len(self.methods) * len(BASELINES)
        return {row.name: self.advantage(scores, row, metric, comparisons) for row in self.baselines_of(scores)}

    def table(self) -> Table:
        """The means over the images of every metric, a row for each method, baseline and layer.

        Confidences, drops and areas are in probability, the confidence increase is a share of the images, ROAD lies in
        [-0.5, 0.5].
        """
        found = [*self.methods, *self.baselines]
        columns = [Column("map"), Column("layer")]
        columns += [Column(f"{metric.label} {'+' if metric.higher_is_better else '-'}", ".3f") for metric in METRICS.values()]
        rows = [(row.title, row.layer, *(row.scores[key].mean() for key in METRICS)) for row in found]
        caption = f"Means over {len(self)} images; + higher is better, - lower is better"
        if any(row.constant for row in found):
            columns.append(Column("constant", "d"))
            rows = [(*cells, row.constant) for cells, row in zip(rows, found, strict=True)]
            caption += "; constant: maps that mark nothing"
        return Table(tuple(columns), tuple(rows), f"{caption}.{self._patches()}")

    def _patches(self) -> str:
        """A sentence on what was removed at a time, empty where it was single pixels."""
        grids = {row.layer: f"{row.patches[0]}x{row.patches[1]} at {row.layer}" for row in self.methods if row.patches}
        return f" Removed and inserted in patches, not in single pixels: {', '.join(grids.values())}." if grids else ""

    def comparison_table(self, metric: str = "road") -> Table:
        """How much better each method's map is than each of its baselines, with intervals.

        Raises `ValueError` where `metric` is not a key of `METRICS`.
        """
        check_metric(metric)
        columns = (Column("map"), *(Column(f"over {baseline}", "+.3f", unless=0) for baseline in BASELINES))
        kind = "intervals after Newcombe" if METRICS[metric].yes_or_no else "bootstrap intervals"
        rows = tuple((row.label, *self.over_baselines(row, metric).values()) for row in self.methods)
        return Table(
            columns,
            rows,
            f"Advantage in {METRICS[metric].label}, paired over {len(self)} images, positive is better; "
            f"{100 * CONFIDENCE:.0f} % {kind}, corrected for {len(self.methods) * len(BASELINES)} comparisons; "
            "* where zero is excluded.",
        )

    def reading(self, metric: str | None = None) -> str:
        """What the numbers say by one metric, or by each of `RANKING_METRICS` in a paragraph of its own.

        A winner is named only where it beats all baselines and all other maps. "Beats" means that the interval of the paired
        difference lies above zero, after correction for the number of comparisons: of every method's map with its baselines,
        and of all pairs of methods' maps.

        Raises `ValueError` where `metric` is not a key of `METRICS`.
        """
        if metric is not None:
            check_metric(metric)
            return " ".join([_judgement(self, metric), *_constant_maps(self)])
        constant = " ".join(_constant_maps(self))
        paragraphs = [*(_judgement(self, each) for each in RANKING_METRICS), *([constant] if constant else [])]
        return "\n\n".join(paragraphs)


def needed_images(comparisons: int) -> int:
    """The fewest images that can show a difference: with fewer, all differences have one sign by chance too often.

    A bootstrap interval never reaches beyond the values seen, so that it excludes zero whenever all have one sign, which without
    any difference happens with the probability 2^(1 - N).
    """
    return math.ceil(1 + math.log2(comparisons / (1 - CONFIDENCE)))


# ---- parts of the reading ----------------------------------------------------------------------------------------------


def _judgement(result: Faithfulness, metric: str) -> str:
    """The verdict by one metric, and where pixel noise scores better than all maps."""
    verdict, best, noise = _verdict(result, metric), _best(result, metric), result.baselines[-1]
    if len(result) < needed_images(1) or result.advantage(noise, best, metric).low <= 0:
        return verdict
    return (
        f"{verdict} Pixel noise, which knows nothing, scores better than all of them ({noise.scores[metric].mean():.3f} against "
        f"{best.scores[metric].mean():.3f}): here this metric rewards scattered pixels, so compare maps of one grid only."
    )


def _constant_maps(result: Faithfulness) -> list[str]:
    """A sentence on the maps that mark nothing, and one for each grid on which a baseline does; whatever the metric."""
    sentences = []
    if constant := sum(row.constant for row in result.methods):
        total = len(result.methods) * len(result)
        sentences.append(f"{constant} of the {total} maps are constant: they mark nothing, and count as pixels in a drawn order.")
    sentences += [
        f"On the grid of {row.layer} the {row.name} marks nothing in {row.constant} of the {len(result)} images, and counts as "
        "pixels in a drawn order: to beat it there says little."
        for row in result.baselines
        if row.constant and row.layer and not row.method
    ]
    return sentences


def _verdict(result: Faithfulness, metric: str) -> str:
    """Names the winner, or says that there is none and why."""
    label = METRICS[metric].label
    heading = f"{label[0].upper()}{label[1:]}, {len(result)} images:"
    against_baselines, pairs = len(result.methods) * len(BASELINES), math.comb(len(result.methods), 2)
    comparisons = max(against_baselines, pairs)
    if len(result) < (needed := needed_images(comparisons)):
        return f"{heading} too few to name a winner; intervals corrected for {comparisons} comparisons need at least {needed}."

    best = _best(result, metric)
    over_baselines = {row: result.over_baselines(row, metric) for row in result.methods}
    beating = [row.label for row, found in over_baselines.items() if all(interval.low > 0 for interval in found.values())]
    also = f"Better than all their baselines: {', '.join(beating) or 'none'}."
    baseline, lead = _closest(over_baselines[best])
    if lead.low <= 0:
        return f"{heading} there is no winner. {_not_clear(best, f'its baseline {baseline!r}', lead, against_baselines)} {also}"
    winner = (
        f"{heading} the winner is {best.label}. It is better than the closest of its baselines, {baseline!r}, by "
        f"{_difference_text(lead, against_baselines)}."
    )

    same = [row.label for row in result.methods if row is not best and _same_scores(row, best, metric)]
    others = [row for row in result.methods if row is not best and row.label not in same]
    if others:
        rival, lead = _closest({row.label: result.advantage(best, row, metric, pairs) for row in others})
        if lead.low <= 0:
            return f"{heading} there is no winner. {_not_clear(best, rival, lead, pairs)} {also}"
        winner += f" It is better than the closest other map, {rival}, by {_difference_text(lead, pairs)}."
    elif same:
        return f"{heading} there is no winner. All the maps score the same on every image. {also}"
    return f"{winner} The same scores on every image: {', '.join(same)}." if same else winner


def _not_clear(best: MapScores, other: str, lead: Interval, comparisons: int) -> str:
    difference = _difference_text(lead, comparisons)
    return f"The best mean is that of {best.label}, but it is not clearly better than {other}: {difference}."


def _same_scores(row: MapScores, other: MapScores, metric: str) -> bool:
    """Grad-CAM and HiResCAM are the same map where global pooling and a linear layer follow."""
    return np.array_equal(row.scores[metric], other.scores[metric])


def _best(result: Faithfulness, metric: str) -> MapScores:
    """The method's map with the best mean; the first of equal ones."""
    sign = 1 if METRICS[metric].higher_is_better else -1
    return max(result.methods, key=lambda row: sign * row.scores[metric].mean())


def _closest(intervals: dict[str, Interval]) -> tuple[str, Interval]:
    """The name and the advantage that comes closest to none: the one whose interval begins lowest."""
    return min(intervals.items(), key=lambda item: item[1].low)


def _difference_text(interval: Interval, comparisons: int) -> str:
    corrected = f", corrected for {comparisons} comparisons" if comparisons > 1 else ""
    return f"{interval.estimate:+.3f} ({100 * CONFIDENCE:.0f} % interval {interval.low:+.3f} to {interval.high:+.3f}{corrected})"
