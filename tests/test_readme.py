"""What the README says to type is run as it stands there, on images that a test can afford."""

import re
from pathlib import Path

import numpy as np
import pytest

from era_support_packages import datasets
from era_support_packages.image_dataset import ImageDataset

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """718 and 120 handwritten digits in place of every data set, and an empty folder to write into."""
    load_digits = datasets.load_digits

    def first(split: ImageDataset, count: int) -> ImageDataset:
        every = len(split) // count
        return split.take(np.arange(count) * every)

    def load(name: str, root: str | None = None) -> tuple[ImageDataset, ImageDataset]:
        train, test = load_digits()
        return first(train, 718), first(test, 120)

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.chdir(tmp_path)


def test_there_is_a_library_example() -> None:
    assert BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number, _ in enumerate(BLOCKS, 1)])
def test_a_python_block_runs_as_it_stands(block: str, few_digits: None, tmp_path: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(block, "README.md", "exec"), namespace)
    if "explanation" not in namespace:
        return
    assert (tmp_path / "explanation.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    # What is explained is the class that the caption names: only so at the resolution of the run.
    history, explanation, worst = (namespace[name] for name in ("history", "explanation", "worst"))
    assert 1 <= len(worst) <= 10
    assert history.resolution < 32
    assert explanation.targets[:, 0].tolist() == history.predictions.predicted[worst].tolist()
    np.testing.assert_allclose(explanation.confidences[:, 0], history.predictions.confidences[worst], atol=0.02)
