"""What the page and the README say to type is there."""

import re
from pathlib import Path

import pytest

from era_support_packages.commands.command_line import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
PAGES = ("docs/command-line.md", "docs/scaling.md", "README.md")
TYPED = [
    (page, line.strip())
    for page in PAGES
    for block in re.findall(r"^```\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if "-m era_support_packages " in line
]


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_each_line_that_a_page_says_to_type_can_be_read(page, line):
    words = re.sub(r"\s+#.*", "", line).split("-m era_support_packages ")[1].split()
    if words == ["--help"]:
        return
    name = words.pop(0) if not words[0].startswith("-") else "train"
    build_parser(name).read(words)


def test_the_page_lists_every_command():
    table = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / PAGES[0]).read_text(), re.MULTILINE)
    assert table == list(COMMANDS)
    assert len(TYPED) >= 12
