"""What was perhaps meant by a name that is not there."""

import pytest

from era_support_packages.system.naming import nearest, nearest_names

MANY = [f"layer{number}" for number in range(60)]


@pytest.mark.parametrize(
    ("name", "valid", "expected"),
    [
        ("bse", ["best", "fast", "cpu"], "did you mean 'best'?"),
        ("fast2", ["best", "fast", "fast1"], "did you mean 'fast' or 'fast1'?"),
        ("RESNET18", iter(["ResNet18", "VGG"]), "did you mean 'ResNet18'?"),
        (2, ["0", "2", "4"], "did you mean '2'?"),
        ("zzz", iter(["best", "fast"]), "choose one of 'best', 'fast'."),
        (None, ["best"], "choose one of 'best'."),
        ("layer7", MANY, "did you mean 'layer7' or 'layer57' or 'layer47'?"),
    ],
)
def test_nearest_names(name, valid, expected):
    assert nearest_names(name, valid) == expected


def test_more_names_than_anybody_reads_are_not_listed_and_the_cutoff_says_how_near_one_must_be():
    assert nearest_names("q", MANY).startswith("the nearest are 'layer")
    assert nearest_names("q", MANY).count("layer") == 3
    assert nearest("abxx", ["abcd"]) == ["abcd"]
    assert nearest("abxx", ["abcd"], cutoff=0.6) == []
    assert nearest("zzz", ["abcd"], cutoff=0) == ["abcd"]
