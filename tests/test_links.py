"""Links and pictures on every page that a person reads."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("notebooks/*.ipynb")])


def text_of(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return re.sub(r"^```\w*$.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_relative_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_picture_has_words_for_those_who_do_not_see_it(page: Path) -> None:
    for words, source in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text_of(page)):
        assert len(words.split()) >= (3 if source.endswith(".svg") else 6), source


def test_there_are_pages_with_links_and_pictures() -> None:
    assert {"README.md", "reading-heatmaps.md", "what-it-refuses.md", "gradcam_cifar10.ipynb"} <= {page.name for page in PAGES}
    assert "troubleshooting" in anchors(ROOT / "README.md")
    assert "](images/gradCAM.png)" in text_of(ROOT / "README.md")
