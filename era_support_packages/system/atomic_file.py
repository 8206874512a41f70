"""Writing a file as a whole."""

import os
import re
import threading
from pathlib import Path


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file as a whole: a reader or a crash sees the old content or the new, never a part.

    The new content goes to a temporary file in the same folder, which is removed where writing fails. Raises `OSError`, which
    names the file itself: a full disk would name none, a folder that may not be written the temporary file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+-\d+\.tmp", path.name) and path.is_file():
            path.unlink(missing_ok=True)
