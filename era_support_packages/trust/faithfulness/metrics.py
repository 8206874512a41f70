"""What is measured when a map's pixels are removed or inserted, and which way is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What is measured for each image, and which way is better."""

    label: str
    higher_is_better: bool
    yes_or_no: bool = False
    """whether it is 0 or 1 for each image, so that its mean is a share"""


# The last three depend on how much of the image a map lets through, so that a map that is large everywhere does well: they
# are what papers report, but only the first three, which remove as many pixels for every map, rank the maps.
METRICS: dict[str, Metric] = {
    "road": Metric("ROAD", True),
    "deletion": Metric("deletion area", False),
    "insertion": Metric("insertion area", True),
    "confidence_drop": Metric("confidence drop", False),
    "confidence_increase": Metric("confidence increase", True, yes_or_no=True),
    "average_drop": Metric("average drop", False),
}


RANKING_METRICS = ("road", "deletion", "insertion")


def check_metric(metric: str) -> None:
    """Raise `ValueError` where `metric` is not a key of `METRICS`."""
    if metric not in tuple(METRICS):
        raise ValueError(f"metric is {metric!r}; choose one of {', '.join(METRICS)}.")
