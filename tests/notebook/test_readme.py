"""What the README says to type is run as it stands there, on images that a test can afford."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from notebook_files import NOTEBOOK

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.digits import load_digits
from era_support_packages.datasets.image_dataset import ImageDataset

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def few_digits(monkeypatch, tmp_path) -> None:
    """718 and 120 handwritten digits in place of every data set, and an empty folder to write into."""

    def load(name: str, root: str | None = None) -> tuple[ImageDataset, ImageDataset]:
        train, test = load_digits()
        return train.take(np.arange(718) * (len(train) // 718)), test.take(np.arange(120) * (len(test) // 120))

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.chdir(tmp_path)


def test_there_is_a_library_example():
    assert BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number, _ in enumerate(BLOCKS, 1)])
def test_a_python_block_runs_as_it_stands(block, few_digits, tmp_path):
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


def test_every_environment_variable_that_a_person_may_set_is_named():
    files = [NOTEBOOK, *(REPOSITORY / "era_support_packages").rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    read = set(re.findall(r"\bERA_[A-Z0-9_]*[A-Z0-9]\b", text)) - {"ERA_NOTEBOOK_FOLDER"}  # set by the notebook
    assert {"ERA_DATA_ROOT", "ERA_CIFAR100_URL", "ERA_REPO_URL"} <= read
    assert {name for name in read if f"`{name}`" not in README} == set()


def texts_of(*folders: Path) -> str:
    """All texts that stand in the code of some folders, a place for a value left out."""
    found = []
    for file in (file for folder in folders for file in sorted(folder.rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_troubleshooting_quotes_what_is_really_said():
    said = texts_of(REPOSITORY / "era_support_packages", REPOSITORY / "tests" / "environments")
    rows = re.findall(r"^\| (.*?) \|", README.split("## Troubleshooting")[1].split("\n## ")[0], re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]+ [^`]+)`", row) if not quote.startswith("make ")]
    assert len(quotes) >= 8
    for quote in quotes:
        for piece in re.split(r"\.\.\.|'[^']*'|\bnan\b|\bCIFAR-10 (?=is)|\b\d+\.\d+\b", quote):
            assert piece.strip(" ,:()=?") in said, quote


def test_each_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`([^`\n]+)`", README))))
    named |= set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert {"run", "test", "lab", "colab"} <= named <= targets
