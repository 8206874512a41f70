"""Whether a person sits at the notebook."""

from typing import Any


def is_interactive() -> bool:
    """True where the cell that runs was sent by a front end that would answer `input()`.

    Browsers do (Jupyter, Colab, VS Code); papermill, nbmake and nbconvert say that nobody is there, and so does plain Python.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    request: dict[str, Any] = getattr(get_ipython(), "get_parent", dict)()  # the message of the protocol, only in a kernel
    return bool(request.get("content", {}).get("allow_stdin", False))
