"""Names, paths and the root of data sets; the digits, "auto", and a folder by its name."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as sklearn_datasets

from era_support_packages import bootstrap
from era_support_packages.datasets.image_dataset import stratified_split
from era_support_packages.datasets.loading import check, default_root, load

ALLOWED = "give one of auto, cifar10, cifar100, digits, or a path to a folder of images"


def save(*files: str, value: int = 0) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (value, 0, 0)).save(file)


# ---- digits and "auto"


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
    assert np.array_equal(load("digits")[1].images, test.images)


def test_auto_is_cifar10_where_it_lies(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("auto", root)[0].name == "cifar10"
    assert capsys.readouterr().out == ""


def test_auto_announces_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("auto")[0].name == "digits"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "=" * 100
    assert lines[1] == "  NOT CIFAR-10: THIS RUN USES HANDWRITTEN DIGITS"
    assert "Put cifar-10-python.tar.gz from" in " ".join(line.strip() for line in lines)
    assert lines[-2] == "  Accuracies on the digits say nothing about CIFAR-10."
    assert max(map(len, lines)) <= 100


# ---- the root


def test_the_root_is_the_argument_else_the_environment_else_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_root() == Path("data")
    root.rename("data")
    assert len(load("cifar10")[0]) == 10
    Path("data").rename("elsewhere")
    with pytest.raises(FileNotFoundError):
        load("cifar10")
    monkeypatch.setenv("ERA_DATA_ROOT", "elsewhere")
    assert len(load("cifar10")[0]) == 10
    with pytest.raises(FileNotFoundError):
        load("cifar10", root=Path("nothing"))


def test_a_root_at_which_nothing_can_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cifar10", "auto", "mnist"):
        with pytest.raises(ValueError, match=r"^Data cannot lie in 'x{300}' \(.*\): name another folder"):
            load(name, "x" * 300)
    monkeypatch.setenv("ERA_DATA_ROOT", "x" * 300)
    with pytest.raises(ValueError, match=r"^Data cannot lie in "):
        check("auto")


def test_a_home_that_is_none_stays_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_DATA_ROOT", "~nobody-is-called-so/data")
    assert default_root() == Path("~nobody-is-called-so/data")
    assert bootstrap.start_download("digits", data_root="~nobody-is-called-so") is None


# ---- names and paths


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


def test_a_file_is_no_data_set() -> None:
    Path("images.zip").touch()
    with pytest.raises(ValueError, match=f"^'images.zip' is a file, not a data set: {ALLOWED}"):
        load("images.zip")


def test_a_folder_by_path_and_by_its_name_in_the_root() -> None:
    for k in range(2):
        save(f"data/pets/cat/{k}.png", f"data/pets/dog/{k}.png", value=k)
    for given in ("pets", "data/pets", Path("data/pets").absolute()):
        train, test = load(given)
        assert (train.name, train.classes, len(train), len(test)) == ("pets", ("cat", "dog"), 2, 2)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["1.png", "2.png"], "holds no class folders: a folder of images has <class>/ or train/<class>/"),
        (["train/cat/1.png", "train/dog/1.png"], "has a folder train/ but no test/: give it both"),
        (["train/cat/1.png", "train/dog/1.png", "test/"], "holds no class folders: it needs the same ones as train/"),
        (["cat/1.png"], "holds only one class folder with images, 'cat': a classifier needs at least two."),
        (["pets/cat/1.png", "pets/dog/1.png"], "at least two (or is {}/pets the data set, with its folders cat, dog?)."),
        (["train/cat/", "train/dog/", "test/cat/", "test/dog/"], None),
    ],
)
def test_a_folder_is_checked_by_its_folders_alone(files: list[str], sentence: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in files:
        place = folder / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_bytes(b"no image: it is not opened")
    if sentence is None:
        check(folder)
        return
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence.format(folder))):
        check("photos", str(tmp_path))


def test_importing_is_cheap() -> None:
    slow = {"torch", "torchvision", "sklearn"}
    code = f"import sys, era_support_packages.datasets.loading; print({slow} & set(sys.modules))"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")
