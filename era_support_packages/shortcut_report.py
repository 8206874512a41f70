"""The planted shortcut in words: the scores as a table, and which maps would have found the mark."""

from era_support_packages.intervals import Interval, percent
from era_support_packages.shortcut_mark import Score
from era_support_packages.shortcut_test import VERDICTS, MapScores, ShortcutTest

_COLUMNS = "{:<16}  {:<10}  {:>7}  {:<17}  {:>7}  {:<20}  {:>7}  {:>7}  {:>5}  {:>8}  {}"
_HEADINGS = ("map", "layer", "grid", "hits", "near", "energy", "ceiling", "control", "other", "constant", "verdict")
_LEGEND = """\
hits: the map's maximum lies in the mark. near: within half a cell of it. energy: the share of the map's
sum in the mark. ceiling: hits of the mark itself, seen through the layer's grid. control: hits of the untouched network's maps.
other: hits of another image's mark. constant: maps without a maximum, which count as misses. In brackets 95 % intervals; all in
percent."""


def score_table(result: ShortcutTest) -> str:
    """A row for each method and layer, then for each grid its ceiling and its baselines: fixed-width text, in percent."""
    lines = [_COLUMNS.format(*_HEADINGS)]
    for maps in result.maps:
        shares = (percent(score.hit_share.estimate) for score in (maps.ceiling, maps.control, maps.other_image))
        constant = int(maps.planted.constant.sum())
        lines.append(_row(maps.method, maps.layer, maps.grid, maps.planted, *shares, constant, maps.verdict))
    seen = set()
    for maps in result.maps:
        if maps.grid not in seen:
            seen.add(maps.grid)
            for name, score in (("ceiling", maps.ceiling), ("random map", maps.random), ("centred Gaussian", maps.gaussian)):
                lines.append(_row(name, maps.layer, maps.grid, score))
    side = result.marks.resolution
    lines.append(_row("pixel noise", "", (side, side), result.noise))
    lines.append(f"{len(result)} marked test images. {_LEGEND}")
    return "\n".join(lines)


def reading(result: ShortcutTest) -> str:
    """What the scores say, in one sentence: the best map, and what each of the maps would have told about the mark."""
    best, rest = result.best()
    share, allowed = rest.hit_share, best.ceiling.hit_share.estimate
    groups = []
    for verdict in VERDICTS:
        named = [f"{maps.label} ({_against_ceiling(maps)})" for maps in result.maps if maps.verdict == verdict]
        if named:
            groups.append(f"{verdict}: {', '.join(named)}")
    return (
        f"{best.label}, chosen on one half of the images, has its maximum in the mark in {percent(share.estimate)} (95 % "
        f"interval {_range_text(share)}) of the other {len(rest)}, where its grid allows {percent(allowed)}; by verdict, "
        f"with the hits and what the grid allows: {'; '.join(groups)}."
    )


def _against_ceiling(maps: MapScores) -> str:
    """Hits of the map, and of what its grid allows: "22 of 24 %"."""
    share, ceiling = maps.planted.hit_share.estimate, maps.ceiling.hit_share.estimate
    return f"{100 * share:.0f} of {100 * ceiling:.0f} %"


def _row(name: str, layer: str, grid: tuple[int, int], score: Score, *comparisons: str | int) -> str:
    """The cells that all rows have, and the last five of a method's row."""
    cells = (_interval_text(score.hit_share), percent(score.near_share.estimate), _interval_text(score.energy, decimals=1))
    return _COLUMNS.format(name, layer, f"{grid[0]}x{grid[1]}", *cells, *(comparisons or [""] * 5)).rstrip()


def _interval_text(interval: Interval, decimals: int = 0) -> str:
    return f"{100 * interval.estimate:5.1f} ({_range_text(interval, decimals)})"


def _range_text(interval: Interval, decimals: int = 0) -> str:
    return f"{100 * interval.low:.{decimals}f} to {100 * interval.high:.{decimals}f}"
