"""The curves of a run with a validation split say which split they show."""

from types import SimpleNamespace

from era_support_packages import plots
from era_support_packages.training import EpochRecord


def run(epochs: int, tested: bool) -> SimpleNamespace:
    none = (None, None, None, None)
    rows = [
        EpochRecord(
            epoch, 8, 18, 0.1, 2.0 / epoch, 100 - 60 / epoch, *((0.5, 80.0, 8, 10) if tested and epoch == epochs else none), 1.0,
            2.5 / epoch, 98 - 60 / epoch, 3, 4,
        )
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    return SimpleNamespace(records=tuple(rows))


def test_the_validation_curve_and_the_test_point() -> None:
    for axes, quantity, value in zip(
        plots.training_curves(run(3, True), "t").axes, ("loss", "accuracy"), (0.5, 80.0), strict=True
    ):
        train, watched, test = axes.get_lines()
        assert [line.get_label().split(":")[0] for line in (train, watched, test)] == ["train", "validation", "test"]
        assert list(watched.get_ydata()) == [getattr(record, f"validation_{quantity}") for record in run(3, True).records]
        assert (list(test.get_xdata()), list(test.get_ydata())) == ([3], [value])
    assert all(len(axes.get_lines()) == 2 for axes in plots.training_curves(run(3, False), "t").axes)


def test_the_log_names_the_split_and_ends_with_the_test_split() -> None:
    texts = [text.get_text() for text in plots.training_log(run(40, True), "t").axes[0].texts]
    assert "val loss" in texts[0]
    assert texts[11] == "... 10 of 40 epochs not shown ..."
    assert texts[-1].startswith("Test split, looked at once, at the end: loss 0.5000")
    assert len(texts) == 1 + 10 + 1 + 20 + 1
