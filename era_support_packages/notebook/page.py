"""What the cells of the notebook share: the run that they show, and the words behind every title."""

from matplotlib.figure import Figure

from era_support_packages import plots
from era_support_packages.evaluation.tables import Readable
from era_support_packages.runs.preparation import PreparedRun
from era_support_packages.runs.readings import keep_reading
from era_support_packages.training.history import History


class Page:
    """The run that a notebook shows; every figure is kept in its folder.

    `history` is None until the run is trained; from then on titles say where it was stopped.
    """

    def __init__(self, prepared: PreparedRun, history: History | None = None) -> None:
        self.prepared, self.history = prepared, history

    @property
    def about(self) -> str:
        """The end of a title: the data set, the run, and where it was stopped."""
        stopped = "" if self.history is None else self.history.stopped
        return f"{self.prepared.train.title}, run {self.prepared.run.name}{stopped}"

    def figure(self, figure: Figure, name: str, result: Readable | None = None) -> None:
        """Keep a figure in the run's folder under a name that ends in .png, and show it here.

        result: what it shows; its reading is kept too, for a report.
        """
        folder = self.prepared.run.folder
        plots.save(figure, folder / name)
        if result is not None:
            keep_reading(folder, name, result.reading())
        plots.show(figure)
