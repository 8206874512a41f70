"""The numbers on the pages that teach are those of the committed notebook."""

import html
import json
import re
from pathlib import Path

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


def test_each_number_is_one_that_the_notebook_shows():
    numbers = shown(ROOT / "notebooks" / "gradcam_cifar10.ipynb")
    invented = "It is 12.345 % (arXiv:1906.02629), for `x = 0.5` and $y = 0.25$."
    found = quoted((ROOT / "docs" / "reading-heatmaps.md").read_text() + invented)
    assert len(found) > 21
    # as it stands, or as the share that a percentage is
    assert [number for number in found if not {number, f"{float(number) / 100:.3f}"} & numbers] == ["12.345"]
