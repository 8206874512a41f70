"""The page of a report: whole, small, and in need of nothing else."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from era_support_packages.commands.command_line import main
from era_support_packages.runs.folder import Run
from era_support_packages.runs.readings import keep_reading, kept_readings

pytestmark = pytest.mark.unhurried


class Page(HTMLParser):
    """The texts, links, pictures and headings of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.anchors, self.pictures, self.texts, self.open = [], set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors.add(values.get("id"))
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.pictures.append(values)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", "first", "second", "--output-dir", str(trained / "runs"), "--out", str(file), "--quiet"]) == 0
    return file


def test_the_page_needs_nothing_else_and_is_small(page):
    text = page.read_text()
    found = Page(text)
    assert found.open == []
    assert page.stat().st_size < 3 * 2**20
    assert not re.search(r"<script|<link|@import|url\(|src=\"(?!data:)", text)
    assert all(link[1:] in found.anchors for link in found.links)
    assert len(found.links) == 7


def test_every_picture_says_what_is_to_be_seen(page):
    pictures = Page(page.read_text()).pictures
    assert len(pictures) >= 6
    assert all(len(picture["alt"]) > 15 for picture in pictures)


def test_it_answers_in_the_order_in_which_somebody_would_ask(page):
    text = " ".join(Page(page.read_text()).texts)
    places = [
        text.rindex(heading)
        for heading in ("How good is it?", "On what?", "Which mistakes?", "What does it look at?", "Can the maps be believed?")
    ]
    assert places == sorted(places)
    assert "say nothing about photos" in text
    assert "--preset smoke --dataset digits --seed 0" in text
    assert "They differ in max_lr" in text
    believed = text[text.rindex("Can the maps be believed?") :]
    for word in ("was not tested", "finished_run", "longer than the training", 'checks to "full"', "check_seconds"):
        assert word in believed  # of what the notebook left out for want of time, opening it again makes nothing


def test_what_is_there_stays_and_what_is_not_finished_is_refused(here, capsys):
    assert main(["report", "first", "--out", "page.htm"]) == 2
    (here / "runs" / "first" / "report.html").write_text("mine")
    assert main(["report", "first"]) == 2
    assert (here / "runs" / "first" / "report.html").read_text() == "mine"
    capsys.readouterr()
    file = here / "runs" / "second" / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])
    assert main(["report", "second"]) == 2
    said = capsys.readouterr().err
    assert "put back a copy of the file, or train the run again" in said
    assert "resume" not in said  # the command has no such option
    (here / "runs" / "second" / "summary.json").unlink()
    assert main(["report", "second"]) == 2
    assert "finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{", "config.json cannot be used ("),
        ("config.json", '{"preset_name": "smoke", "epoch": 3}', "Unknown parameter 'epoch'"),
        ("summary.json", "[]", "summary.json cannot be used ("),
        ("checkpoint.pt", None, "checkpoint.pt is missing"),
    ],
)
def test_of_a_run_that_cannot_be_read_it_says_why(file, content, reason, here, capsys):
    path = here / "runs" / "first" / file
    path.unlink() if content is None else path.write_text(content)
    for command in (["report", "first"], ["export", "first", "--to", "card"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert "Put the file back as it was" in said
        assert "same values" not in said  # that would not finish it


def test_of_a_run_that_is_being_trained_it_says_to_wait(here, capsys):
    run = Run(here / "runs" / "first")
    with run.locked():
        assert main(["report", "first"]) == 2
    assert "is being trained: a report is of a finished run. Wait until it is finished." in capsys.readouterr().err


def test_what_the_checks_of_the_notebook_said_stands_by_their_figures(here, capsys):
    folder = here / "runs" / "first"
    Image.new("RGB", (40, 30), "white").save(folder / "sanity_check.png")
    keep_reading(folder, "sanity_check.png", "Grad-CAM passes.\n\nGuided backpropagation does not.")
    keep_reading(folder, "faithfulness.png", "of a figure that is not there")
    assert main(["report", "first", "--quiet"]) == 0
    text = " ".join(Page((folder / "report.html").read_text()).texts)
    assert "Do the maps depend on what was learned?" in text
    assert text.index("Grad-CAM passes.") < text.index("Guided backpropagation does not.") < text.index("how much of the maps")
    assert "not there" not in text
    (folder / "readings.json").write_text("[]")
    assert kept_readings(folder) == {}
