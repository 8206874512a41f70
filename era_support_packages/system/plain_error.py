"""Errors that are a sentence for a person: a notebook shows the sentence, without the way through the code."""

import textwrap


class PlainError:
    """Mixed into an exception class whose message says all that a person needs: what was wrong, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback; papermill and nbmake take it from there."""
        return textwrap.wrap(str(self), 96, break_long_words=False, break_on_hyphens=False)
