"""Names and paths of data sets; the digits, "auto", and a folder by its name."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from era_support_packages import bootstrap
from era_support_packages.datasets.image_dataset import stratified_split
from era_support_packages.datasets.loading import check, default_root, load

ALLOWED = "give one of auto, cifar10, cifar100, digits, or a path to a folder of images"


def test_digits_are_scikit_learns() -> None:
    train, test = load("digits")
    assert (train.images.shape, test.images.shape) == ((1437, 32, 32, 3), (360, 32, 32, 3))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.classes == test.classes == tuple("0123456789")
    assert (train.name, train.split, test.split) == ("digits", "train", "test")
    assert train.title == test.title == "handwritten digits (embedded default, not CIFAR-10)"
    assert train.mean == test.mean == pytest.approx((train.images[..., 0] / 255).mean().repeat(3))
    digits = sklearn_datasets.load_digits()
    for split, indices in zip((train, test), stratified_split(digits.target), strict=True):
        assert np.array_equal(split.labels, digits.target[indices])
        assert (split.images == split.images[..., :1]).all()
        originals = digits.images[indices] * 255 / 16
        averaged = split.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        for k in range(0, len(split), 50):  # averaged back to 8x8, an image is nearest to the original it is made of
            assert np.abs(originals - averaged[k]).mean(axis=(1, 2)).argmin() == k


def test_auto_announces_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("auto")[0].name == "digits"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "=" * 100
    assert lines[1] == "  NOT CIFAR-10: THIS RUN USES HANDWRITTEN DIGITS"
    assert "Put cifar-10-python.tar.gz from" in " ".join(line.strip() for line in lines)
    assert lines[-2] == "  Accuracies on the digits say nothing about CIFAR-10."
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("cifar-10", " (did you mean 'cifar10' or 'cifar100'?)"),
        ("CIFAR10", " (did you mean 'cifar10' or 'cifar100'?)"),
        ("digit", " (did you mean 'digits'?)"),
        ("flower", " (did you mean 'flowers'?)"),  # a folder in the root
        ("photos/cat_and_dogs", " (did you mean 'photos/cats_and_dogs'?)"),  # a folder beside
        (Path("digits"), " (did you mean 'digits'?)"),  # a path is never a name
        ("mnist", ""),
        ("", ""),
        (None, ""),
        (10, ""),
    ],
)
def test_an_unknown_name_gets_the_nearest(given: object, hint: str) -> None:
    Path("data/flowers").mkdir(parents=True)
    Path("photos/cats_and_dogs").mkdir(parents=True)
    place = f" No such folder is in {Path.cwd()} or in {Path.cwd() / 'data'}." if given and given != 10 else ""
    shown = str(given) if isinstance(given, Path) else given
    with pytest.raises(ValueError, match=f"^{re.escape(f'Unknown data set {shown!r}{hint}: {ALLOWED}.{place}')}$"):
        load(given)


@pytest.mark.parametrize("given", ["x" * 300, f"{'x' * 300}/y", "~nobody-is-called-so/y", "~nobody-is-called-so"])
def test_a_path_that_no_system_takes_is_unknown(given: str) -> None:
    with pytest.raises(ValueError, match=f"^Unknown data set {given!r}"):
        load(given)
    with pytest.raises(ValueError, match=r"^data_root is "):
        check("cifar10", given)


def test_a_root_at_which_nothing_can_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cifar10", "auto", "mnist"):
        with pytest.raises(ValueError, match=r"^Data cannot lie in 'x{300}' \(.*\): name another folder"):
            load(name, "x" * 300)
    monkeypatch.setenv("ERA_DATA_ROOT", "x" * 300)
    with pytest.raises(ValueError, match=r"^Data cannot lie in "):
        check("auto")
    monkeypatch.setenv("ERA_DATA_ROOT", "~nobody-is-called-so/data")
    assert default_root() == Path("~nobody-is-called-so/data")
    assert bootstrap.start_download("digits", data_root="~nobody-is-called-so") is None


def test_a_file_is_no_data_set() -> None:
    Path("images.zip").touch()
    with pytest.raises(ValueError, match=f"^'images.zip' is a file, not a data set: {ALLOWED}"):
        load("images.zip")


def test_a_folder_by_path_and_by_its_name_in_the_root(image_folder: Callable[..., Path]) -> None:
    folder = image_folder({"cat": [0, 1], "dog": [0, 1]}, "data/pets")
    for given in ("pets", "data/pets", folder):
        train, test = load(given)
        assert (train.name, train.classes, len(train), len(test)) == ("pets", ("cat", "dog"), 2, 2)


def test_importing_is_cheap(run_code: Callable[..., str]) -> None:
    slow = {"torch", "torchvision", "sklearn"}
    assert run_code(f"import sys, era_support_packages.datasets.loading; print({slow} & set(sys.modules))") == "set()\n"
