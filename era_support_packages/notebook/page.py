"""What the cells of the notebook share: the run that they show, and the words behind every title."""

import gc
from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import nn

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.tables import Readable
from era_support_packages.notebook.own_photos import OwnPhotos
from era_support_packages.runs.preparation import PreparedRun
from era_support_packages.runs.readings import keep_reading
from era_support_packages.training.history import History


class Page:
    """The run that a notebook shows; every figure is kept in its folder.

    `history` is None until the run is trained; from then on titles say where it was stopped.
    """

    def __init__(self, prepared: PreparedRun, history: History | None = None) -> None:
        self.prepared, self.history = prepared, history
        if gc.get_freeze_count() == 0:  # once
            gc.collect()  # what is garbage already would be kept for ever, and so would a network that becomes it later
            if not any(nn.Module in type(found).__mro__ for found in gc.get_objects()):
                # The libraries stay: to look through all of them for garbage took up to a fifth of a figure's time.
                gc.freeze()

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
        path = plots.save(figure, folder / name)
        if result is not None:
            keep_reading(folder, name, result.reading())
        plots.show(figure, picture=path.read_bytes())  # drawing it again for the page took as long

    def own_photos(self, classifier: Classifier, photo: str | Sequence[str] | None, method: str = "gradcam") -> None:
        """Show what the network looks at in photos of the person's own, a file, several, or a folder, or how to give some.

        Where somebody sits at the notebook, a button takes photos from their computer. Raises `ParameterError` for a path
        where nothing is, and where no image is found.
        """
        OwnPhotos(self, classifier, method).show(photo)
