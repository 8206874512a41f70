"""Paths as people write them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` replaced by the home folder; `~name` stays as it is where nobody is called so.

    `Path.expanduser` raises there, and what it raises is no `OSError`.
    """
    return Path(os.path.expanduser(path))


def no_folder(path: str | os.PathLike[str]) -> str:
    """Why no folder can be at this path, which need not be there yet; "" where one can."""
    folder = expanded(path).absolute()
    if reason := unusable(folder):
        return reason
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    return "" if os.path.isdir(there) else f"{there} is no folder"


def unusable(path: str | os.PathLike[str]) -> str:
    """Why nothing can be at this path, in the system's words (a name too long, a folder that may not be read), else ""."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a null byte
        return str(error)
    return ""


def printable_path(path: Path) -> str:
    """A path as text that can be printed and written, whatever its bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode()
