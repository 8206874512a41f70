"""Sentences that name parameters, in the words that a person can type where they read them."""

import re
from collections.abc import Collection
from typing import Literal

Place = Literal["options", "-p", "cell"]


def as_typed(sentence: str, place: Place, lines: Collection[str], others: Collection[str]) -> str:
    """A sentence with `resume=False` and the like as it is typed there.

    place: "options" of the plain command line, "-p" of the notebook's, or the "cell" of the notebook's parameters. lines: the
    parameters that have a line in that cell; others: those that go into `more`.

    >>> from era_support_packages.notebook.wording import as_typed
    >>> sentence = "Give another run_name, or set resume=False to train in a new folder."
    >>> as_typed(sentence, "options", ["resume", "run_name"], [])
    'Give another --run-name, or give --no-resume to train in a new folder.'
    >>> as_typed(sentence, "-p", ["resume", "run_name"], [])
    'Give another run_name, or give -p resume False to train in a new folder.'
    """
    names = "|".join(sorted((*lines, *others), key=len, reverse=True))

    def with_value(match: re.Match[str]) -> str:
        verb, name, value = match.groups()
        if place == "cell":
            return (verb or "") + (f"{name} = {value}" if name in lines else f'more = {{"{name}": {value}}}')
        verb, value = "give " * bool(verb), value if " " in value else value.strip("'")
        if place == "-p":
            return f"{verb}-p {name} {value}"
        if (name, value) == ("resume", "False"):
            return f"{verb}--no-resume"
        return f"{verb}{_option(name)} {value.lower() if value in ('True', 'False') else value}"

    typed = re.sub(rf"(set )?(?<![\w.(])({names})=(True|False|None|'[^']*'|[\w.+-]*\w)", with_value, sentence)
    if place != "options":
        return typed
    # A name alone is told from a word by its underscore, or by the value that follows it at the start of a sentence.
    underscored = rf"""(?<![\w/.'"=-])(?=\w*_)({names})(?!\w|\.\w|[/'"=(]| = )"""
    started = rf"(?:(?<=^)|(?<=[.:;] )|(?<=and ))({names})(?= is )"
    return re.sub(f"{underscored}|{started}", lambda match: _option(match[1] or match[2]), typed)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
