"""The numbers on the pages that teach are those of the committed notebook."""

import html
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = r"(?<![\d.])\d+\.\d+(?![\d.]*\d)"  # those with a decimal point: a whole number may be anything


def shown(notebook: Path) -> set[str]:
    """Every number that a notebook's outputs show."""
    outputs = [output for cell in json.loads(notebook.read_text())["cells"] for output in cell.get("outputs", [])]
    texts = [output.get("text", "") for output in outputs]
    texts += [text for output in outputs for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    whole = html.unescape(re.sub(r"<[^>]+>", " ", "\n".join("".join(text) for text in texts)))
    return set(re.findall(r"\d+(?:\.\d+)?", whole))


def quoted(page: str) -> list[str]:
    """The numbers of a page, but for those of papers, formulas and commands, and of tables that another test measures."""
    page = re.sub(r"<!-- measured by \S+ -->.*?<!-- end -->", " ", page, flags=re.DOTALL)
    prose = re.sub(r"arXiv:[\d.]+|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", " ", page, flags=re.DOTALL)
    return re.findall(NUMBER, prose)


def is_shown(number: str, numbers: set[str]) -> bool:
    """As it stands, or as the share that a percentage is."""
    return number in numbers or f"{float(number) / 100:.3f}" in numbers


@pytest.mark.parametrize("page", ["reading-heatmaps.md"])
def test_each_number_is_one_that_the_notebook_shows(page: str) -> None:
    numbers = shown(ROOT / "notebooks" / "gradcam_cifar10.ipynb")
    found = quoted((ROOT / "docs" / page).read_text())
    assert len(found) > 20
    assert [number for number in found if not is_shown(number, numbers)] == []


def test_a_number_that_no_output_shows_is_found() -> None:
    numbers = shown(ROOT / "notebooks" / "gradcam_cifar10.ipynb")
    assert not is_shown("12.345", numbers)
    assert quoted("It is 12.345 % (arXiv:1906.02629), for `x = 0.5` and $y = 0.25$.") == ["12.345"]
