"""Runs beside each other, from the command line and in Python."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_run import TINY

from era_support_packages import load
from era_support_packages.commands.command_line import main
from era_support_packages.runs import RunError, compare
from era_support_packages.training.checkpoint import Checkpoint


def test_what_differs_stands_first_and_seeds_are_folded(here):
    found = compare("first", "second", "second-again")
    assert found.differing == {"max_lr": (0.01, 0.02, 0.02), "seed": (0, 0, 1)}
    assert found.groups == ((0,), (1, 2))
    accuracies = [run.entry.test_accuracy for run in found.runs]
    first, second = found.table().rows
    assert (first[0], first[1], first[3].estimate) == ("first", "0.01", pytest.approx(accuracies[0]))
    assert second[:3] == ("second and 1 more", "0.02", 2)
    assert second[3:5] == pytest.approx((np.mean(accuracies[1:]), np.std(accuracies[1:], ddof=1)))


def test_two_runs_are_paired_on_the_same_test_images(here, capsys):
    labels = load("digits")[1].labels
    right = [
        Checkpoint.load(here / "runs" / name / "checkpoint.pt").logits.numpy().argmax(1) == labels for name in ("first", "second")
    ]
    assert main(["compare", "first", "second", "--figures", "cmp", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["paired"]["only_first"] == (right[0] & ~right[1]).sum()
    assert said["paired"]["difference"] == pytest.approx(right[1].mean() - right[0].mean())
    assert (here / "cmp" / "curves.png").is_file()
    assert said["differing"] == {"max_lr": [0.01, 0.02]}


def test_runs_on_images_of_two_sizes_are_compared_in_the_larger(here, capsys):
    values = ["--max-lr", "0.01", "--image-size", "40", "--resolutions", "[[40, 1.0]]", "--run-name", "large", "--quiet"]
    assert main(["train", *TINY, *values]) == 0
    for names in (["first", "large"], ["large", "first"]):
        capsys.readouterr()
        assert main(["compare", *names, "--figures", names[0], "--json"]) == 0
        paired = json.loads(capsys.readouterr().out)["paired"]
        assert compare(*names).test.images.shape[1:3] == (40, 40)
        drawn = {f"only_{name}.png" for name, only in zip(names, ("only_first", "only_second"), strict=True) if paired[only]}
        assert {path.name for path in (here / names[0]).iterdir()} == {"curves.png"} | drawn


def test_without_the_test_images_the_rest_is_compared(here):
    for name in ("first", "second"):
        file = here / "runs" / name / "data.json"
        data = json.loads(file.read_text())
        data["test"]["digest"] = "0" * 64
        data["test"]["by_class"]["0"] = [36, "0" * 16]
        file.write_text(json.dumps(data))
    found = compare("first", "second")
    assert found.test is None
    assert "holds other test images now" in found.reading()
    data["test"]["digest"] = "1" * 64
    file.write_text(json.dumps(data))
    assert "different images" in compare("first", "second").reading()
    with pytest.raises(RunError, match="different images"):
        compare("first", "second").paired()


def test_a_network_that_was_changed_is_a_difference_and_no_repeat(here, capsys):
    def change(name):
        file = here / "runs" / name / "checkpoint.pt"
        state = Checkpoint.load(file)
        dataclasses.replace(state, classifier={**state.classifier, "model": None}).save(file)

    change("second")
    found = compare("second", "second-again")
    assert found.differing == {"model": ("resnet_custom, changed", "resnet_custom"), "seed": (0, 1)}
    assert found.groups == ((0,), (1,))
    assert main(["compare", "second", "second-again", "--figures", "cmp", "--quiet"]) == 0
    assert [path.name for path in (here / "cmp").iterdir()] == ["curves.png"]
    assert "Nobody can tell" not in found.reading()
    change("second-again")
    assert "which no name makes, are the same: second, second-again." in compare("second", "second-again").reading()


def test_a_run_that_was_stopped_has_no_result(here):
    (here / "runs" / "first" / "summary.json").unlink()
    assert "not run to the end: first" in compare("first", "second").reading()


def test_a_figure_that_is_there_stays(here, capsys):
    (here / "cmp").mkdir()
    (here / "cmp" / "curves.png").write_text("mine")
    assert main(["compare", "first", "second", "second-again", "--figures", "cmp"]) == 2
    assert (here / "cmp" / "curves.png").read_text() == "mine"
    assert main(["compare", "first", "second", "second-again", "--figures", "cmp", "--force"]) == 0
    assert (here / "cmp" / "curves.png").stat().st_size > 1000
