"""Every error is a whole sentence: it begins with a capital letter, or with a name that can be typed, and it ends."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "era_support_packages"
# Parts of a sentence, which another error completes, and Python's own form.
PARTS = {"UndecodableError", "BrokenOff", "TooSlow", "Unavailable", "TensorFileError", "AttributeError"}
NOT_NAMES = {
    "a",
    "an",
    "the",
    "this",
    "these",
    "there",
    "no",
    "none",
    "only",
    "two",
    "it",
    "layer",
    "stage",
    "parameter",
    "network",
}


def messages() -> Iterator[tuple[str, ast.expr]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            made = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(made, ast.Call) and made.args and ast.unparse(made.func).split(".")[-1] not in PARTS:
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", made.args[0]


def problem(message: ast.expr) -> str:
    """What keeps a text from being a sentence, "" where nothing does or it is not written where it is raised."""
    if not isinstance(message, ast.JoinedStr | ast.Constant):
        return ""
    pieces = message.values if isinstance(message, ast.JoinedStr) else [message]
    first, last = pieces[0], pieces[-1]
    if isinstance(first, ast.Constant) and str(first.value).split(" ")[0] in NOT_NAMES:
        return f"begins without a capital letter: {ast.unparse(message)}"
    if isinstance(last, ast.Constant) and not str(last.value).rstrip("\"')").endswith((".", "?", "!")):
        return f"does not end: {ast.unparse(message)}"
    return ""


def test_every_error_is_a_whole_sentence() -> None:
    found = [(where, problem(message)) for where, message in messages()]
    assert len(found) > 200
    assert [f"{where} {said}" for where, said in found if said] == []
