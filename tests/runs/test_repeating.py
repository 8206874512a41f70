"""The command of "How to repeat it" becomes the configuration that it repeats."""

import json
import shlex
from types import SimpleNamespace

import pytest

from era_support_packages.commands.command_line import build_parser
from era_support_packages.datasets.fitting import Fitting
from era_support_packages.datasets.loading import NAMES
from era_support_packages.runs.card import cautions, recipe
from era_support_packages.runs.entry import changed_values
from era_support_packages.runs.repeating import needed_values
from era_support_packages.training.adapting import adapted, is_built_in, is_pretrained
from era_support_packages.training.config import PreparedConfig, TrainingConfig

OPEN = {"engine": "device", "stream": False, "workers": 0, "threads": 2, "device": "cpu"}
CASES = [
    ("smoke", "digits", Fitting(32, "crop"), {}),
    ("smoke", "digits", Fitting(32, "crop"), {"horizontal_flip": 0.5}),
    ("smoke", "cifar10", Fitting(32, "crop"), {"horizontal_flip": 0.0}),
    ("smoke", "digits", Fitting(32, "squash"), {}),  # as earlier versions trained
    ("original", "digits", Fitting(32, "crop"), {"max_lr": 0.1}),
    ("cpu", "digits", Fitting(32, "crop"), {"train_images": 79_400}),  # which takes the preset's max_epochs away
    ("cpu", "digits", Fitting(32, "crop"), {"train_images": 500, "max_epochs": 10}),
    ("cpu", "digits", Fitting(32, "crop"), {"epochs": 3, "validation": 0.1, "skip_broken": True}),
    ("fast", "cifar10", Fitting(32, "crop"), {"horizontal_flip": 0.25}),
    ("best", "my photos", Fitting(64, "crop"), {}),
    ("cpu", "my photos", Fitting(64, "pad"), {"resolutions": [(0.25, 0.6), (0.375, 0.4)]}),  # the preset's px, not grown
    ("cpu", "my photos", Fitting(64, "crop"), {"model": "timm/resnet18", "pretrained": False, "engine": "samples"}),
    (
        *("smoke", "/photos/it's", Fitting(32, "pad")),
        {"train_images": 24, "batch_size": 8, "horizontal_flip": 0.9, "resolutions": [(32, 1.0)]},
    ),
]


def stored(preset, dataset, fitting, values):
    """As a run of this request would be written down."""
    request = TrainingConfig.preset(preset, **{"dataset": dataset, **values}).to_dict()
    answers = {**OPEN, "image_size": fitting.size, "fit": fitting.fit, "precision": "bf16", "pretrained": is_pretrained(request)}
    answers |= {"horizontal_flip": 0.0 if dataset == "digits" else 0.5, "max_lr": 0.123456789}
    request |= {name: answer for name, answer in answers.items() if request[name] == "auto"}
    return PreparedConfig.from_dict(adapted(request, fitting.size))


@pytest.mark.parametrize(("preset", "dataset", "fitting", "values"), CASES)
def test_the_command_trains_the_same(preset, dataset, fitting, values):
    config = stored(preset, dataset, fitting, values)
    said = {"seconds": 1.0, "hardware": "a CPU", "pflops": 0.1, "versions": {"torch": "2.6"}}
    command, _ = recipe(SimpleNamespace(config=lambda: config, summary=lambda: said))
    typed = build_parser("train").read(shlex.split(command)[4:])
    given = {name: typed[name] for name in config.to_dict() if name != "preset_name" and typed[name] is not None}
    assert given["dataset"] == dataset
    again = stored(typed["preset"], typed["dataset"], fitting, given)
    assert again == config
    if not is_built_in({"dataset": dataset}):
        assert (given["image_size"], given["fit"]) == (fitting.size, fitting.fit)  # a folder's may be chosen otherwise elsewhere
        assert given["horizontal_flip"] == config.horizontal_flip
    assert given["precision"] == "bf16"
    assert given["max_lr"] == config.max_lr


def test_muon_for_all_convolutions_is_named_where_the_preset_leaves_the_widest_out():
    """As in a run of `--optimizer muon` from before the preset had a number."""
    values = stored("cpu", "digits", Fitting(32, "crop"), {}).to_dict()
    del values["muon_outputs"]
    assert needed_values(PreparedConfig.from_dict(values))["muon_outputs"] == 10**6
    assert "muon_outputs" not in needed_values(stored("fast", "digits", Fitting(32, "crop"), {}))


def test_nothing_is_named_that_the_preset_brings():
    assert needed_values(stored(*CASES[0])) == {"max_lr": 0.01, "precision": "bf16"}
    assert needed_values(stored(*CASES[9])).keys() == {"image_size", "fit", "max_lr", "horizontal_flip", "precision"}
    assert [name for name in NAMES if not is_built_in({"dataset": name})] == ["auto"]


@pytest.mark.parametrize(
    ("case", "used", "expected"),
    [
        (0, False, {}),
        (1, False, {"horizontal_flip": 0.5}),
        (2, False, {"horizontal_flip": 0.0}),
        (3, False, {"fit": "squash"}),
        (4, False, {"max_lr": 0.1}),
        (4, True, {}),  # the range test chose it
        (9, False, {"image_size": 64}),
    ],
)
def test_a_list_names_what_was_changed_and_not_what_auto_chose(tmp_path, case, used, expected):
    (tmp_path / "range_test.json").write_text(json.dumps({"used": used}))
    config = TrainingConfig.from_dict(stored(*CASES[case]).to_dict())
    assert changed_values(config, tmp_path) == expected


def test_a_list_names_what_was_changed_of_a_folder(tmp_path):
    config = TrainingConfig.from_dict(stored(*CASES[-1]).to_dict())
    changed = {"image_size": 32, "fit": "pad", "horizontal_flip": 0.9, "train_images": 24, "batch_size": 8}
    assert changed_values(config, tmp_path) == {**changed, "resolutions": [[32, 1.0]]}


@pytest.mark.parametrize(
    ("right", "of", "said"), [(5, 6, "43.6 and 97.0 %"), (1, 1, "20.7 and 100.0 %"), (800, 900, "86.7 and 90.8 %")]
)
def test_how_little_few_test_images_tell_stands_first(right, of, said):
    config = SimpleNamespace(dataset="photos")
    history = SimpleNamespace(config=config, records=[0], final_predictions=SimpleNamespace(correct=right))
    (found,) = cautions(history, range(of))
    assert found.startswith(f"The test split has only {of} image{'s' * (of > 1)}: ")
    assert said in found
