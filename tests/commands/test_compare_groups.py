"""compare: which runs are folded to one row, and what is said of them."""

import json

import numpy as np
import pytest

from era_support_packages.runs import compare


def with_other_images(run, split, count):
    """As if the data set had held other images when the run was trained."""
    file = run / "data.json"
    data = json.loads(file.read_text())
    data[split]["digest"] = "ab" * 32
    data[split]["by_class"]["0"] = [count, "0" * 16]
    file.write_text(json.dumps(data))


@pytest.mark.parametrize("split", ["train", "test"])
def test_runs_on_other_images_of_the_same_data_set_are_not_folded(split, here):
    known = json.loads((here / "runs" / "second" / "data.json").read_text())[split]
    counts = [count for count, _ in known["by_class"].values()]
    with_other_images(here / "runs" / "second-again", split, 7)
    found = compare("second", "second-again")
    name = {"train": "training images", "test": "test images"}[split]
    before, after = f"{sum(counts):,} ({known['digest'][:8]})", f"{sum(counts[1:]) + 7:,} (abababab)"
    assert found.differing == {"seed": (0, 1), name: (before, after)}
    assert found.groups == ((0,), (1,))
    assert [row[:3] for row in found.table().rows] == [("second", "0", before), ("second-again", "1", after)]
    assert found.reading().startswith(f"They differ in seed, {name}.")
    assert ("a difference may come from these images" in found.reading()) == (split == "train")


def test_a_run_whose_images_are_unknown_is_not_called_another(here):
    found = compare("second", "second-again")
    unknown = type(found)(tuple(type(run)(run.entry, run.values, run.records, run.logits) for run in found.runs), found.test)
    assert unknown.differing == {"seed": (0, 1)}


def test_seeds_are_not_held_against_each_other(here):
    found = compare("second", "second-again")
    accuracies = [run.entry.test_accuracy for run in found.runs]
    assert found.reading() == (
        f"They differ in seed. Over the seeds, the test accuracy is {np.mean(accuracies):.2f} % on average, with a standard "
        f"deviation of {np.std(accuracies, ddof=1):.2f} points (2 runs)."
    )
    assert found.to_dict()["paired"]["images"] == 360  # who asks for the images gets them
    assert "p = " in compare("first", "second").reading()
    assert "p = " in compare("first", "second-again").reading()
