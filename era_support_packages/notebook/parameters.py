"""The notebook's parameters: what its cell holds, what may be given besides, and one sentence for each bad value.

Imports nothing that is slow: a bad value is named before a kernel is started or PyTorch is loaded.
"""

import ast
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.gradcam.method_names import MethodName
from era_support_packages.models.catalog import Network
from era_support_packages.notebook import wording
from era_support_packages.runs.finished import check_finished
from era_support_packages.system.command_values import read_value
from era_support_packages.system.front_end import is_interactive
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.paths import expanded, no_folder
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.settings import fields, is_text, is_text_field, problem, setting, takes
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.config_checks import tracker_problem
from era_support_packages.training.presets import PRESETS, named_preset
from era_support_packages.trust.extent import Extent

if TYPE_CHECKING:
    from era_support_packages.runs.preparation import PreparedRun, Report

MOST_MISTAKES = 100  # more do not fit into a figure of Grad-CAM maps
_FIELDS = fields(TrainingConfig)
_FOLDER: dict[str, Any] = {"wanted": "the path of a folder as text, or None", "test": is_text}


def _are_paths(value: object) -> bool:
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


def _as_in_config(name: str, default: Any) -> Any:
    """A field of the configuration, with the default that it has in the cell: None is the preset's value."""
    return dataclasses.field(default=default, metadata=_FIELDS[name].metadata)


@dataclass(frozen=True)
class Knobs:
    """The parameters cell, `more` aside: its names in order, their values there, and what they are for."""

    dataset: str = _as_in_config("dataset", "auto")
    data_root: str | None = setting(None, "folder that holds or receives the data set; None is data/", **_FOLDER)
    preset: str = setting("auto", f"auto (finetune for photos, fast with a GPU, else cpu), {', '.join(PRESETS)}")
    seed: int = _as_in_config("seed", 0)
    output_dir: str = _as_in_config("output_dir", "runs")
    run_name: str | None = _as_in_config("run_name", None)
    resume: bool = setting(True, "go on with a run of the same values that was stopped; False trains in a new folder")
    finished_run: str | None = setting(None, "folder of a finished run: show it again instead of training", **_FOLDER)
    model: Network | None = _as_in_config("model", None)  # noqa: RUF009 (the clone is a package too)
    epochs: int | None = _as_in_config("epochs", None)
    batch_size: int | None = _as_in_config("batch_size", None)
    max_lr: float | str | None = _as_in_config("max_lr", None)
    mistakes: int = setting(10, "wrong predictions to show and explain", low=1, high=MOST_MISTAKES)
    photo: str | list[str] | None = setting(
        None,
        "section 17: a photo of your own, a list of them, or a folder; None says how to give one",
        wanted="the path of a photo or of a folder as text, a list of such paths, or None",
        test=_are_paths,
    )
    method: MethodName = setting("gradcam", "gradcam, gradcam++, hirescam, xgradcam, layercam, or another one of section 13")
    analyze_mistakes: bool = setting(True, "section 11: which classes, which pairs, which labels, how well calibrated")
    explore_methods: bool = setting(True, "section 13: every method for one image (12 s on two cores at 24 px)")
    check_faithfulness: bool = setting(True, "section 14: do the maps mark what the network uses? (45 s there)")
    check_sanity: bool = setting(True, "section 15: do they depend on what was learnt? (30 s there)")
    plant_shortcut: bool = setting(True, "section 16: would they find a cause that we planted? (65 s there)")
    checks: Extent = setting("auto", "how large sections 13 to 16 are: auto (as the work of the training allows) or full")
    check_seconds: float | None = setting(
        None, "seconds of sections 13 to 16 together; None is no more work than the training took", above=0, high=10**6
    )


@dataclass(frozen=True)
class Beside:
    """What the cell has no line for, and is no value of a configuration either."""

    devices: int | Literal["all"] = setting(
        1, 'GPUs of this machine that train the run together, or "all"; on a CPU so many processes', low=1, high=64
    )


KNOBS: dict[str, Any] = dataclasses.asdict(Knobs())
_BESIDE = fields(Beside)
OTHERS = (*(name for name in _FIELDS if name not in KNOBS), *_BESIDE)
"""what the cell has no line for: by name on a command line, in `more` in the cell"""
_OWN = {name: field for name, field in fields(Knobs).items() if name not in _FIELDS}  # what no configuration holds
_TEXTS = {name for name, field in {**_FIELDS, **_OWN}.items() if is_text_field(field)}
_LISTS = {name for name, field in _OWN.items() if takes(field, list[str])}  # what is typed for them may be one of texts


class ParameterError(PlainError, ValueError):
    """A parameter that cannot be used; the message says what was given, what is allowed, and what to do."""


@dataclass(frozen=True)
class Parameters:
    """What was given to the notebook: values of `KNOBS` and of `OTHERS` by name."""

    values: Mapping[str, Any]
    ignored: tuple[str, ...] = ()
    """names of `OTHERS` that are variables of the notebook without being its parameters"""

    @classmethod
    def collect(cls, given: Mapping[str, Any]) -> "Parameters":
        """From names and values, with `more` (a table of further ones) taken apart.

        Raises `ParameterError` for unknown names, and for one that is given twice.
        """
        values = {name: value for name, value in given.items() if name != "more"}
        more = given.get("more") or {}
        if not isinstance(more, Mapping):
            raise ParameterError(f'more is {more!r}; give names with values, such as {{"cutout": 8, "label_smoothing": 0.0}}.')
        problems = [f"Unknown parameter {name!r}: {nearest_names(name, [*KNOBS, 'more', *OTHERS])}" for name in _unknown(values)]
        problems += [f"Unknown parameter {name!r} in more: {nearest_names(name, OTHERS)}" for name in _unknown(more)]
        problems += [f"{name} has a line of its own: give it there instead of in more." for name in more if name in KNOBS]
        problems += [f"{name} is given twice, by its name and in more: give it once." for name in more if name in values]
        if problems:
            raise ParameterError(" ".join(dict.fromkeys(problems)))
        return cls({**values, **more})

    @classmethod
    def read(cls, namespace: Mapping[str, Any]) -> "Parameters":
        """From the namespace of a notebook (its `globals()`): the knobs, `more`, and every further name that was given with them.

        Further names are those that the parameters cell, or the cell that papermill adds behind it, assigns; what other cells
        call by such a name is not touched. A name of the person's own starts with an underscore.
        """
        assigned = [name for name in _assigned_as_parameters(namespace) if name in namespace and not name.startswith("_")]
        given = {name: namespace[name] for name in dict.fromkeys([*KNOBS, "more", *assigned]) if name in namespace}
        ignored = tuple(name for name in OTHERS if name in namespace and name not in assigned)
        return dataclasses.replace(cls.collect(given), ignored=ignored)

    @property
    def knobs(self) -> dict[str, Any]:
        """All of `KNOBS`, as given or as they are in the committed cell."""
        return {name: self.values.get(name, value) for name, value in KNOBS.items()}

    @property
    def overrides(self) -> dict[str, Any]:
        """What changes the preset: the values of `TrainingConfig` but `None`."""
        given = {**self.knobs, **self.values}
        return {name: given[name] for name in _FIELDS if given.get(name) is not None}

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the committed cell."""
        return {
            name: value
            for name, value in self.values.items()
            if value is not None and not (name in KNOBS and value == KNOBS[name])
        }

    def for_papermill(self) -> dict[str, Any]:
        """What was given, as names of the parameters cell: all that has no line of its own in `more`."""
        more = {name: value for name, value in self.values.items() if name in OTHERS}
        own = {name: value for name, value in self.values.items() if name in KNOBS}
        return {**own, **({"more": more} if more else {})}

    def check(self) -> None:
        """Raise `ParameterError` with one sentence for each bad value; reads no data and makes no folder."""
        knobs = self.knobs
        problems = list(_problems_with_knobs(knobs))
        beside = {name: self.values[name] for name in _BESIDE if self.values.get(name) is not None}
        problems += [said for name, value in beside.items() if (said := problem(_BESIDE[name], value))]
        preset = named_preset(knobs["preset"], self.overrides)
        try:
            TrainingConfig.preset(preset, **self.overrides)
            if not problems:
                self._check_paths()
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
        if problems:
            raise ParameterError(" ".join(problems))

    def _check_paths(self) -> None:
        knobs = self.knobs
        if knobs["finished_run"] is not None:
            if not os.path.isdir(folder := expanded(knobs["finished_run"])):
                raise ValueError(f"finished_run is {knobs['finished_run']!r}, but there is no such folder: give that of a run.")
            check_finished(folder)
        else:
            if missing := tracker_problem(self.values.get("tracker")):
                raise ValueError(missing)
            datasets.check(knobs["dataset"], knobs["data_root"])
        if problem := no_folder(knobs["output_dir"]):
            raise ValueError(f"output_dir {knobs['output_dir']!r} cannot be used ({problem}): give a folder.")
        if knobs["photo"] is not None:
            from era_support_packages.datasets.photos import photo_files

            try:
                photo_files([knobs["photo"]] if isinstance(knobs["photo"], str) else knobs["photo"])
            except (ValueError, FileNotFoundError) as error:
                raise ValueError(f"photo is {knobs['photo']!r}, which cannot be used: {error}") from None
        if {"device", "precision"} & self.values.keys():
            from era_support_packages.system.machine import resolve_device, resolve_precision

            device = resolve_device(self.values.get("device") or "auto")
            if self.values.get("precision") not in (None, "auto"):
                resolve_precision(self.values["precision"], device)

    def prepare(self, report: "Report | None" = None) -> "PreparedRun":
        """Configuration, data and folder of the run (see `runs.prepare`).

        Raises `ParameterError`, or the error of a folder or a data set that cannot be used: all show as their sentence alone.
        """
        self.check()
        from era_support_packages.evaluation.tables import print_wrapped
        from era_support_packages.runs import preparation

        place: wording.Place = "cell" if is_interactive() else "-p"
        show = report or print_wrapped

        def report_typed(line: str) -> None:
            show(as_typed(line, place))

        for name in self.ignored:
            show(f"Note: the variable {name} of this notebook is no parameter; to make it one, write it into more.")
        own = {name: self.knobs[name] for name in ("data_root", "resume", "finished_run")}
        own |= {name: self.values[name] for name in _BESIDE if self.values.get(name) is not None}
        shown = own["finished_run"] is not None  # nobody asks for it to have what the cell holds by itself
        overrides = {name: value for name, value in self.overrides.items() if not shown or name in self.changed}
        try:
            return preparation.prepare(self.knobs["preset"], report=report_typed, **own, **overrides)
        except (ValueError, FileNotFoundError, DatasetError) as error:
            kind = type(error) if isinstance(error, PlainError) else ParameterError
            raise kind(as_typed(str(error), place)) from None


def as_typed(sentence: str, place: wording.Place) -> str:
    """A sentence that names parameters, as they are typed there (`wording.as_typed`)."""
    return wording.as_typed(sentence, place, KNOBS, OTHERS)


def parse(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Names and values of `-p NAME VALUE`, each name once: text stays text ("2024" as a name), the rest is Python or JSON."""
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name in found:
            raise ParameterError(f"{name} is given twice: give it once.")
        value = read_value(text)
        as_it_is = name in _TEXTS and text != "None" and not (name in _LISTS and isinstance(value, list))
        found[name] = text if as_it_is else value
    return found


def _unknown(given: Mapping[str, Any]) -> list[str]:
    return [name for name in given if name not in KNOBS and name not in OTHERS]


def _problems_with_knobs(knobs: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each bad value of what is the notebook's own."""
    for name, field in _OWN.items():
        if name != "preset" and (sentence := problem(field, knobs[name])) is not None:  # the configuration says what a preset is
            yield sentence
    if knobs["checks"] == "full" and knobs["check_seconds"] is not None:
        yield f"checks is 'full', which knows no limit, and check_seconds is {knobs['check_seconds']!r}: give one of them."


def _assigned_as_parameters(namespace: Mapping[str, Any]) -> list[str]:
    """The names that the parameters cell and papermill's cell after it assigned when they were run last.

    IPython keeps what was run in `In`. Outside of it nobody but the cells above can have set a field's name.
    """
    if "In" not in namespace:
        return [name for name in OTHERS if name in namespace]
    names: list[str] = []
    injected: list[str] = []
    for source in namespace["In"]:
        assigned, annotated = _assignments(source)
        if annotated & {"preset", "more"}:  # only the parameters cell says of what type they are
            names, injected = assigned, []
        elif source.startswith("# Parameters\n"):  # how papermill begins its cell
            injected = assigned
    return [*names, *injected]


def _assignments(source: str) -> tuple[list[str], set[str]]:
    """The names that a cell assigns on its top level, and those of them that have a type beside them."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return [], set()
    annotated = [node.target.id for node in statements if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    plain = [
        target.id
        for node in statements
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return [*annotated, *plain], set(annotated)
