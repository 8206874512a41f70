"""What the whole test run shares."""

import gc
import signal


def pytest_collection_finish() -> None:
    """The million objects of the imports stay; each garbage collection in a test would look through them all again."""
    gc.collect()
    gc.freeze()


def pytest_sessionstart() -> None:
    """Ctrl-C works in the tests and in what they start, also in a job in the background, where a shell has switched it off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
