"""What stands in a notebook for a run that is not trained, or not to its end."""

from typing import Any

from era_support_packages.runs.folder import Run, RunError
from era_support_packages.system.front_end import is_interactive
from era_support_packages.system.plain_error import PlainError
from era_support_packages.training.history import History

NOTHING_YET = "There is nothing to show before the first epoch is complete: run the training cell again, then those after it."


class NotTrainedError(PlainError, RuntimeError):
    """A cell needs what only training brings."""


class Untrained:
    """Stands in a notebook for the results of training until they are there.

    A cell that needs it then says so in one sentence, instead of failing in its own words or showing an earlier run.

    >>> from era_support_packages.runs import NotTrainedError, Untrained
    >>> history = Untrained()
    >>> try:
    ...     history.table()
    ... except NotTrainedError as error:
    ...     print(error)
    This cell shows a trained network. There is nothing to show before ...
    """

    def _refuse(self, *_: object) -> Any:
        raise NotTrainedError(f"This cell shows a trained network. {NOTHING_YET}")

    __len__ = __iter__ = __getitem__ = __bool__ = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what Python, IPython and completion look for
            raise AttributeError(name)
        self._refuse()


def require_complete(run: Run, history: History) -> None:
    """Say that a run was stopped: as a sentence to a person, as a `RunError` where nobody sits at the notebook.

    >>> from era_support_packages.runs import RunError, prepare, require_complete
    >>> from era_support_packages.training import History
    >>> prepared = prepare("smoke", dataset="digits")
    >>> try:
    ...     require_complete(prepared.run, History((), prepared.config, None, planned=5))
    ... except RunError as error:
    ...     print(error)
    The run was stopped after epoch 0 of 5: run again to go on.
    """
    if run.finished:
        return
    sentence = f"The run was stopped after epoch {len(history.records)} of {history.planned}: run again to go on."
    if not is_interactive():
        raise RunError(sentence)
    print(sentence)
