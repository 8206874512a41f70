"""The widgets of a panel in the browser, used as a person uses them: by the words beside them."""

import typing
from collections.abc import Callable, Sequence

from playwright.sync_api import Locator

if typing.TYPE_CHECKING:
    from notebook_page import NotebookPage

ANSWER_SECONDS = 30

PIXELS = """
async (panel) => {
  const images = [...panel.querySelectorAll("img, canvas")].filter((image) => image.offsetParent);
  const shown = [];
  for (const image of images) {
    if (image.decode) await image.decode().catch(() => {});
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth || image.width;
    canvas.height = image.naturalHeight || image.height;
    if (!canvas.width) continue;
    canvas.getContext("2d").drawImage(image, 0, 0);
    shown.push(canvas.toDataURL());
  }
  return shown;
}
"""


class Panel:
    """Widgets in the output of a cell; a knob is called by its description.

    What changes a knob raises an AssertionError where the panel does not answer each change within half a minute, or none with
    another picture.
    """

    def __init__(self, page: "NotebookPage", root: Locator) -> None:
        self.page, self.root = page, root

    def pictures(self) -> list[str]:
        """The pixels of each picture that the panel shows."""
        return self.root.first.evaluate(PIXELS) if self.root.count() else []

    def described(self) -> set[str]:
        """The descriptions of all knobs."""
        return {text.strip() for text in self.root.locator(".widget-label").all_inner_texts()}

    def knob(self, name: str) -> Locator:
        return self.root.locator(".widget-inline-hbox", has=self.page.page.get_by_text(name, exact=True))

    def choose_another(self, name: str) -> None:
        """Choose the neighbours of the chosen option in a drop-down list, and that again."""
        select = self.knob(name).locator("select")
        chosen, count = select.evaluate("select => [select.selectedIndex, select.options.length]")
        assert count > 1, f"{name} offers no choice"
        others = ((chosen + 1) % count, (chosen - 1) % count, chosen)
        self._answers(name, [lambda index=index: select.select_option(index=index) for index in others])

    def type_another(self, name: str) -> None:
        """Type the next whole numbers into a field, and the first again."""
        field = self.knob(name).locator("input")
        value = int(field.input_value())
        others = map(str, (value + 1, value + 2, value))
        self._answers(name, [lambda text=text: (field.fill(text), field.press("Enter")) for text in others])

    def move(self, name: str) -> None:
        """Move a slider by the keyboard."""
        handle = self.knob(name).locator(".noUi-handle")
        keys = ("ArrowRight", "ArrowLeft", "End", "Home")
        self._answers(name, [lambda key=key: handle.press(key) for key in keys])

    def _answers(self, name: str, acts: Sequence[Callable[[], object]]) -> None:
        """Each act must change what the panel shows, and at least one its pictures: two maps may both mark nothing."""
        seen = [self._shown()]
        for number, act in enumerate(acts, start=1):
            act()
            what = f"The panel answers change {number} of {name!r}"
            self.page.until(lambda: self._shown() != seen[-1], ANSWER_SECONDS, what)
            self.page.until(lambda: self._shown(settled=True), ANSWER_SECONDS, f"{what} and comes to rest")
            seen.append(self._shown())
        assert len({pictures for pictures, _ in seen}) > 1, f"no change of {name!r} brings another picture"

    def _shown(self, settled: bool = False) -> tuple[tuple[str, ...], str] | None:
        """Pictures and words; with `settled` only where they stay the same for a moment, else None."""
        shown = (tuple(self.pictures()), " ".join(self.root.locator(".widget-label, .widget-html-content").all_inner_texts()))
        if not settled:
            return shown
        self.page.page.wait_for_timeout(300)
        return shown if shown == self._shown() else None
