"""What a recipe made for images of 32 px becomes for larger ones."""

import pytest
from other_values import make

from era_support_packages.datasets import load
from era_support_packages.training.adapting import adapted, changes, usual
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.resolution import BEFORE_SIZES, prepare_config, stored_config

TRAIN = load("digits")[0]


def at(size: int, preset: str, **values: object) -> dict[str, object]:
    return adapted(TrainingConfig.preset(preset, **values).to_dict(), size)


@pytest.mark.parametrize(
    ("preset", "values", "size", "plan"),
    [
        ("cpu", {}, 32, [[16, 0.6], [24, 0.4]]),
        ("cpu", {}, 128, [[64, 0.6], [96, 0.4]]),
        ("original", {}, 96, [[96, 1.0]]),
        ("cpu", {"resolutions": [(40, 1)]}, 128, [[40, 1]]),  # px by hand stay
        ("cpu", {"resolutions": [(0.5, 0.5), (1.0, 0.5)]}, 96, [[48, 0.5], [96, 0.5]]),
        ("cpu", {"resolutions": [(1, 1)]}, 224, [[224, 1]]),
        ("cpu", {"resolutions": [(0.01, 1)]}, 64, [[8, 1]]),
    ],
)
def test_resolutions_are_shares_or_px_and_a_presets_own_grow(preset, values, size, plan):
    assert at(size, preset, **values)["resolutions"] == plan


def test_lengths_of_a_preset_grow_and_those_by_hand_stay():
    assert {name: at(128, "best")[name] for name in ("crop_padding", "cutout")} == {"crop_padding": 16, "cutout": 48}
    assert at(128, "best", crop_padding=5)["crop_padding"] == 5
    before = TrainingConfig.preset("smoke").to_dict()
    assert changes(before, adapted(before, 64)) == "resolutions [32] instead of [16], crop_padding 4 instead of 2"
    assert changes(before, adapted(before, 32)) == ""


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image_size": 32, "resolutions": [(33, 1)]}, "resolutions go up to 33 px, but image_size is"),
        ({"image_size": 64, "crop_padding": 64}, "crop_padding is 64, which must be smaller"),
        ({"image_size": 64, "cutout": 65}, "cutout is 65, but image_size is"),
    ],
)
def test_what_is_larger_than_the_images_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**values)
    with pytest.raises(ValueError, match=sentence):  # also where the size is known from the data only
        prepare_config(make(**{**values, "image_size": "auto"}), TRAIN)


def test_images_of_another_size_than_asked_for_are_refused():
    with pytest.raises(ValueError, match=r"image_size is 64, but these images were loaded with image_size=32: load them by"):
        prepare_config(make(image_size=64), TRAIN)
    with pytest.raises(ValueError, match="fit is 'pad', but these images were loaded with fit='squash'"):
        prepare_config(make(fit="pad"), TRAIN)


def test_a_stored_run_without_the_fields_was_squashed_to_32_px():
    values = prepare_config(TrainingConfig.preset("cpu"), TRAIN).to_dict()
    assert {name: values.pop(name) for name in BEFORE_SIZES} == BEFORE_SIZES
    stored = stored_config(values)
    assert (stored.image_size, stored.fit) == (32, "squash")
    assert TrainingConfig.preset("cpu").differences(stored) == []  # it is found again
    assert TrainingConfig.preset("cpu", fit="crop").differences(stored) == ["fit 'squash' (here 'crop')"]


def test_a_request_is_that_of_a_run_at_its_size():
    stored = prepare_config(TrainingConfig.preset("cpu"), load("digits", image_size=64, fit="crop")[0])
    assert stored.resolutions == ((32, 0.6), (48, 0.4))
    assert TrainingConfig.preset("cpu").differences(stored) == []
    assert TrainingConfig.preset("cpu", resolutions=[(0.5, 0.6), (0.75, 0.4)]).differences(stored) == []
    assert TrainingConfig.preset("cpu", image_size=32).differences(stored) != []


def test_what_a_stored_run_has_otherwise_is_told_from_what_its_images_made_of_the_preset():
    stored = prepare_config(TrainingConfig.preset("cpu", cutout=9), load("digits", image_size=64, fit="crop")[0]).to_dict()
    expected = usual(TrainingConfig.preset("cpu").to_dict(), stored)
    differing = {name for name, value in stored.items() if expected[name] not in ("auto", value)}
    assert differing == {"cutout", "image_size"}
