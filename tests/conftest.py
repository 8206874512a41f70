"""What the whole test run shares."""

import gc


def pytest_collection_finish() -> None:
    """The million objects of the imports stay; each garbage collection in a test would look through them all again."""
    gc.collect()
    gc.freeze()
