"""What one check will do, decided before it starts, and in which words that is said."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from era_support_packages.trust.extent import Extent

REMEDY = 'Set checks = "full" to run all of it.'


@dataclass(frozen=True)
class CheckPlan:
    """What one check will do, decided before it starts.

    >>> from era_support_packages.trust import CheckPlan
    >>> plan = CheckPlan("Left out, as check_sanity = False.")  # as `CheckBudget` makes it
    >>> plan.runs, plan.passes
    (False, 0)
    """

    sentence: str
    """what it costs, or why it is left out"""
    runs: bool = False
    passes: int = 0
    """of an image through the network; a backward pass counts double"""
    count: int = 0
    """of test images, at most"""
    draws: int = 0
    """of random networks"""
    methods: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """what the check's own function takes to be as large as planned: `evaluate(classifier, test, **plan.options)`"""

    @property
    def maps(self) -> int:
        """Of each image, where the plan says at which layers: one by each method at each of them."""
        return len(self.methods) * len(self.options.get("layers", ()))

    @property
    def size(self) -> str:
        """How large it is, in words: "16 images and 6 draws"."""
        named = ((self.count, "images"), (self.draws, "draws"), (self.maps, "maps each" if self.maps > 1 else "map each"))
        return " and ".join(f"{number} {name}" for number, name in named if number)


def taken_instead(size: CheckPlan, largest: CheckPlan) -> str:
    """How large a check is, and how large it would be: "16 images and 6 draws are taken instead of 24 and 12"."""
    if size.maps == largest.maps:
        maps = ("", "")
    else:
        maps = (f" and {size.maps} map{'s' if size.maps > 1 else ''} each", f" and {largest.maps}")
    drawn = (f" and {size.draws} draws", f" and {largest.draws}") if size.draws else ("", "")
    return f"{size.count} images{drawn[0]}{maps[0]} are taken instead of {largest.count}{drawn[1]}{maps[1]}"


def not_wanted(knob: str) -> CheckPlan:
    """The plan of a check that was not asked for."""
    return CheckPlan(f"Left out, as {knob} = False.")


def check_extent(extent: str) -> None:
    """Raise `ValueError` where `extent` is not one of `Extent`."""
    if extent not in get_args(Extent):
        raise ValueError(f"checks is {extent!r}; give 'auto' (as much as the training allows) or 'full'.")


def check_limit(seconds: float | None, extent: str) -> None:
    """Raise `ValueError` where `seconds` are no limit, or come with an extent that knows none."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"check_seconds is {seconds!r}; give the seconds of all checks together, above 0, or None.")
    if extent == "full":
        raise ValueError(f"checks is 'full', which knows no limit, and check_seconds is {seconds:g}; give one of them.")
