"""The page in a narrow and in a wide window: a picture of each cell is kept, and all can be read."""

from pathlib import Path

import pytest

WIDTHS = (1000, 1440)  # pixels of the window
JAVASCRIPT = Path(__file__).with_name("layout.js").read_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_can_be_read(executed, folder, width):
    page = executed.page
    page.set_width(width)
    page.photograph(folder / f"{width}px")
    faults = page.layout_faults(JAVASCRIPT)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("style", "content", "fault"),
    [
        ("word-break: break-all", "one verdict that is undecided", '"verdict" is broken within the word'),
        ("word-break: break-all", "means of -0.25", '"-0.25" is broken within the word'),
        ("", 'and <code>more={"cutout": 8}</code>', None),
        ("", '<table style="width: 300px"><tr><td>x</td></tr></table>', "px right of its cell"),
        ("overflow: auto", '<div style="width: 300px">x</div>', "hides 200 px of its width"),
        ("", "a line wraps at its spaces and well-known hyphens", None),
        ("word-break: break-all; white-space: pre-wrap", "short\n/a/long/path/may/break.png\nshort", None),
    ],
)
def test_what_cannot_be_read_is_found(browser, style, content, fault):
    page = browser.new_page()
    output = f'<div class="jp-OutputArea-output" style="{style}">{content}</div>'
    page.set_content(f'<div id="cell" style="width: 100px; font: 16px monospace">{output}</div>')
    faults = page.locator("#cell").evaluate(JAVASCRIPT)
    page.close()
    assert any(fault in text for text in faults) if fault else faults == []
