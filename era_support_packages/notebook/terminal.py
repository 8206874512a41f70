"""What the cells of a notebook show, printed while papermill runs them: their prints, and tables and sentences as text."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Printer(logging.Handler):
    """Prints each output that papermill logs, at once; what else papermill logs is left out."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.funcName == "log_output_message" and record.levelno == logging.INFO and text.strip():
            sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
            sys.stdout.flush()


@contextmanager
def printed() -> Iterator[None]:
    """Inside, `papermill.execute_notebook(..., log_output=True)` prints all that cells show, without what they write to stderr.

    papermill's own `stdout_file` knows only what cells print, and a table is shown, not printed.
    """
    logger, handler = logging.getLogger("papermill"), _Printer()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
