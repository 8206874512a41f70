"""After "Run All Cells" every cell has run, nothing failed or warned, every figure is on the page, and no line is too long."""

import re

import pytest

WIDEST = 100  # characters
# Drawn only where the data or the network give cause.
NOT_ALWAYS = {"confused_pairs.png", "suspicious_labels.png", "planted_shortcut.png"}


def code_cells(notebook):
    """Number and cell of each code cell."""
    return [(number, cell) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def outputs(notebook):
    """Where it is and the output itself, for each output."""
    return [(f"cell {number} ({cell.id})", output) for number, cell in code_cells(notebook) for output in cell.outputs]


def texts(output):
    """The texts of an output by kind; a stream's are called by its name."""
    if output.output_type == "stream":
        return {output.name: output.text}
    return {kind: text for kind, text in output.get("data", {}).items() if kind.startswith("text/")}


def errors(notebook):
    return [f"{place}: {output.ename}: {output.evalue}" for place, output in outputs(notebook) if output.output_type == "error"]


def test_every_cell_has_run(executed):
    counts = [cell.execution_count for _, cell in code_cells(executed.notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed(executed):
    assert not errors(executed.notebook), "\n".join(errors(executed.notebook))
    assert executed.run is not None, "there is not exactly one run's folder"


def test_nothing_warns(executed):
    said = [(place, kind, text) for place, output in outputs(executed.notebook) for kind, text in texts(output).items()]
    faults = [
        f"{place}, {kind}: {text}" for place, kind, text in said if kind == "stderr" or re.search("warning", text, re.IGNORECASE)
    ]
    assert not faults, "\n".join(faults)


def test_every_figure_is_on_the_page(executed):
    faults = []
    for number, cell in code_cells(executed.notebook):
        named = set(re.findall(r'"(\w+\.png)"', cell.source))
        drawn = {name for name in named if executed.run and (executed.run / name).is_file()}
        faults += [f"cell {number} ({cell.id}) drew no {name}" for name in sorted(named - drawn - NOT_ALWAYS)]
        shown = executed.page.shown_pictures(number)
        if shown != len(drawn):
            faults.append(f"cell {number} ({cell.id}) drew {', '.join(sorted(drawn))} and shows {shown} pictures")
    assert not faults, "\n".join(faults)


def too_long(text):
    """The lines over the limit, but for a path alone on its line."""
    return [line for line in text.splitlines() if len(line) > WIDEST and not re.fullmatch(r"\s*\S*[/\\]\S*\s*", line)]


def test_no_line_of_text_is_too_long(executed):
    faults = [
        f"{place}, {kind}, {len(line)} characters: {line}"
        for place, output in outputs(executed.notebook)
        for kind, text in texts(output).items()
        if kind in ("stdout", "stderr", "text/plain")
        for line in too_long(text)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "found"),
    [("a" * 101, 1), ("a " * 50, 0), ("/" + "a" * 200, 0), ("see /" + "a" * 200, 1), ("short\n" + "b " * 60 + "\nshort", 1)],
)
def test_lines_that_are_too_long_are_found(text, found):
    assert len(too_long(text)) == found
