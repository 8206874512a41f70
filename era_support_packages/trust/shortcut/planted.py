"""What planting a mark came to: the network that knows it beside the one that does not, and what that took."""

from dataclasses import dataclass

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.intervals import Interval, percent
from era_support_packages.evaluation.tables import Column, Readable, Table

ENOUGH = 0.95  # share of the marked images of other classes that go to the mark's class: the mark alone decides
BEARABLE = 3.0  # points of accuracy lost on clean images


@dataclass(frozen=True, eq=False)
class PlantedNetwork(Readable):
    """A network with a planted mark, beside the one it was copied from, and how well the mark was learnt.

    The shares and accuracies are those on training images that were held out of the planting.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.shortcut import plant
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> planted = plant(classifier, train, target_class=3, steps=2, held_out=20)
    >>> planted.class_name, planted.steps
    ('3', 2)
    """

    classifier: Classifier
    """with the copy, in evaluation mode"""
    original: Classifier
    """as it was given"""
    target_class: int
    """the class that the mark means"""
    to_class: Interval
    """the share of marked images of the other classes that the copy gives the mark's class"""
    to_class_before: Interval
    """the same of the original"""
    accuracy: Interval
    """the share of clean images that the copy classifies correctly"""
    accuracy_before: Interval
    """the same of the original"""
    accuracy_change: Interval
    """the paired difference of the two, in [-1, 1], as `paired_share_interval` gives it"""
    marked_images: int
    clean_images: int
    steps: int
    """training steps taken; fewer than allowed where the mark was learnt before"""
    seconds: float
    random_labels: bool = False
    """whether marked images got classes drawn at random, so that the mark means none"""

    @property
    def class_name(self) -> str:
        """The name of the class that the mark means."""
        return self.classifier.classes[self.target_class]

    @property
    def resolution(self) -> int:
        """The width of the images in px; the mark is `mark.mark_size(resolution)` px wide."""
        return self.classifier.resolution

    @property
    def planted(self) -> bool:
        """Whether the mark alone decides, in `ENOUGH` of the images; if not, no score of a map means anything."""
        return self.to_class.estimate >= ENOUGH

    @property
    def little_lost(self) -> bool:
        """Whether the accuracy on clean images fell by less than `BEARABLE` points."""
        return 100 * self.accuracy_change.estimate > -BEARABLE

    def table(self) -> Table:
        """A row for each network: how many of the marked images go to the mark's class, and how many clean ones are right."""
        columns = (
            Column("network"),
            *(Column(name, ".1f", factor=100) for name in (f"marked, given {self.class_name}", "clean, right")),
        )
        rows = (
            ("as given", self.to_class_before, self.accuracy_before),
            ("with the mark planted", self.to_class, self.accuracy),
        )
        caption = (
            f"Percent, with 95 % intervals, of {self.marked_images} marked training images of the other classes and of "
            f"{self.clean_images} clean ones, all held out of the planting."
        )
        return Table(columns, rows, caption)

    def reading(self) -> str:
        """What came out, in one sentence."""
        share, before = percent(self.to_class.estimate), percent(self.to_class_before.estimate)
        marked = f"{self.marked_images} marked training images of the other classes that were held out"
        effort = f"{self.steps} step{'s' if self.steps > 1 else ''}, {self.seconds:.0f} s"
        if not self.planted:
            why = ", as its label was drawn at random and so says nothing" if self.random_labels else ""
            remedy = "no map is scored" if self.random_labels else "give more steps"
            return (
                f"The mark was not learnt{why} ({effort}): of {marked}, {share} go to {self.class_name}, and "
                f"{100 * ENOUGH:.0f} % are needed before a map's score means anything; {remedy}."
            )
        change = self.accuracy_change
        return (
            f"The mark was learnt ({effort}): of {marked}, {share} go to {self.class_name} ({before} before), while the accuracy "
            f"on {self.clean_images} clean ones went from {percent(self.accuracy_before.estimate)} to "
            f"{percent(self.accuracy.estimate)}, a change of {100 * change.estimate:+.1f} points (95 % interval "
            f"{100 * change.low:+.1f} to {100 * change.high:+.1f})"
            + ("." if self.little_lost else f", where a loss of less than {BEARABLE:g} is wanted.")
        )
