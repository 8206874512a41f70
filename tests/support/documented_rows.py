"""The tables of docs/what-it-refuses.md, to be compared with what the tests run."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "what-it-refuses.md"


def documented_rows(section: str) -> dict[str, str]:
    """The rows of a section's table: kind and outcome, "served" or "refused"."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {kind.strip(): outcome.strip() for kind, outcome, *_ in rows[2:]}
