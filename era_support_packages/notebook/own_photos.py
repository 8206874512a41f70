"""The notebook's section on a person's own photos: those that the parameters name, and those that come by a button."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.datasets.photos import Photo, decoded_photos, named_broken, named_depths, panel_names, photo_files
from era_support_packages.evaluation.intervals import percent
from era_support_packages.evaluation.tables import show
from era_support_packages.notebook.parameters import ParameterError
from era_support_packages.runs.photos import explain_photo, how_sure, kept_temperature
from era_support_packages.system.front_end import is_interactive
from era_support_packages.system.paths import printable_path

if TYPE_CHECKING:
    from era_support_packages.notebook.page import Page

MOST = 12  # panels on a page
NONE_GIVEN = (
    "No photo is given. Set photo in section 1 to the path of one, to a list of paths, or to a folder, and run that cell and "
    "this one again; on a command line give -p photo FILE."
)
OR_BUTTON = "Or press the button: it takes photos from your computer."


class OwnPhotos:
    """Panels of photos that are nobody's but the person's, drawn with the network of a page's run into the run's folder."""

    def __init__(self, page: "Page", classifier: Classifier, method: str) -> None:
        self.page, self.classifier, self.method = page, classifier, method
        self._bits = classifier.bits  # asked for now: where nothing is trained, the cell says so before it draws a button

    def show(self, photo: str | Sequence[str] | None) -> None:
        """The panels of the photos given, or how to give some; where a person sits at the notebook, a button too.

        Raises `ParameterError` for a path where nothing is, and where no image is found.
        """
        button = is_interactive()
        if photo is None:
            show(f"{NONE_GIVEN} {OR_BUTTON}" if button else NONE_GIVEN)
        else:
            try:
                files = photo_files([photo] if isinstance(photo, str) else photo)
            except (ValueError, FileNotFoundError) as error:
                raise ParameterError(f"photo is {photo!r}, which cannot be used: {error}") from None
            self._show_files(files)
        if button:
            plots.PhotoUpload(self.drawn).show()

    def drawn(self, files: Sequence[Path]) -> Iterator[tuple[str, Path | None]]:
        """What `plots.PhotoUpload` shows of each file: its likeliest classes and its panel, or why there is none."""
        depths = []
        for name, photo in self._decoded(files):
            depths.append(photo.bits)
            if photo.pixels is None:
                yield named_broken([(printable_path(Path(photo.file.name)), photo.problem)], len(files)), None
                continue
            said, figure = self._explained(photo)
            yield said, plots.save(figure, self._folder / f"photo_{name}.png")
        if said := named_depths(depths, self._bits):
            yield said, None
        yield self._how_sure, None

    def _show_files(self, files: Sequence[Path]) -> None:
        broken, depths = [], []
        for name, photo in self._decoded(files[:MOST]):
            depths.append(photo.bits)
            if photo.pixels is None:
                broken.append((printable_path(photo.file), photo.problem))
            else:
                self.page.figure(self._explained(photo)[1], f"photo_{name}.png")
        problem = named_broken(broken, len(files[:MOST]))
        left_out = ""
        if len(files) > MOST:
            command = f"python -m era_support_packages explain {self._folder} FOLDER"
            left_out = f"These are the first {MOST} of {len(files)} photos; {command} draws all of a folder."
        show(*filter(None, (problem, named_depths(depths, self._bits), left_out, self._how_sure)))

    def _decoded(self, files: Sequence[Path]) -> Iterator[tuple[str, Photo]]:
        photos = (photo for part in decoded_photos(files, self._bits) for photo in part)
        return zip(panel_names(files), photos, strict=True)

    def _explained(self, photo: Photo) -> tuple[str, Figure]:
        """The likeliest classes in words, and the panel."""
        assert photo.pixels is not None
        temperature = kept_temperature(self._folder)
        found = explain_photo(self.classifier, photo.pixels, temperature=temperature, method=self.method)
        name = printable_path(Path(photo.file.name))
        values = {"fit": self.classifier.fit, "temperature": temperature}
        title = f"Your photo {name}: {self.page.about}"
        figure = plots.photo_panel(photo.pixels, found.explanation, found.top, title, **values)
        return f"{name}: {', '.join(f'{label} {percent(sure)}' for label, sure in found.top)}", figure

    @property
    def _folder(self) -> Path:
        return self.page.prepared.run.folder

    @property
    def _how_sure(self) -> str:
        return how_sure(kept_temperature(self._folder))
