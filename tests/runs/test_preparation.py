"""Before a run begins: the same values find its folder and go on as it was resolved then; nothing is ever overwritten."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import files, records, untouched
from tiny import colored_images, quiet

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset
from era_support_packages.runs import preparation
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.keeping import prune
from era_support_packages.runs.preparation import PreparedRun, prepare
from era_support_packages.system import machine
from era_support_packages.system.machine import resolve_device
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import TrainingConfig

SMALL = {"epochs": 4, "resolutions": [(8, 1.0)], "batch_size": 8, "max_lr": 0.1, "device": "cpu", "precision": "fp32"}
OPEN = {"device": "auto", "precision": "auto"}  # the machine decides
NOT_BEGUN = "Going on with {}: it was stopped before its first epoch was complete."


class Asking:
    """`prepare` for a small run over 24 and 10 small images, which stand in place of every data set."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.lines: list[str] = []  # what the last call said
        self.loaded: list[tuple[str, str | None]] = []  # the data sets that were asked for, and where
        patch.setattr(datasets, "load", self.load)

    def load(self, name: str, root: str | None = None) -> tuple[ImageDataset, ImageDataset]:
        self.loaded.append((name, root))
        return colored_images(24), colored_images(10, split="test", seed=1)

    def __call__(self, preset: str = "smoke", **values: Any) -> PreparedRun:
        self.lines = []
        return prepare(preset, report=self.lines.append, **{**SMALL, "output_dir": str(self.root), **values})

    def refusal(self, kind: type[Exception], preset: str = "smoke", **values: Any) -> str:
        """What is said where the values are refused; nothing may change then."""
        with untouched(self.root), pytest.raises(kind) as raised:
            self(preset, **values)
        return str(raised.value)

    def machine(self, gpus: int = 0, cores: int | None = 4, threads: int = 2, bf16: Any = lambda: False) -> None:
        """What the machine has, as far as the package asks."""
        self.patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        self.patch.setattr(torch.cuda, "device_count", lambda: gpus)
        self.patch.setattr(torch.backends.mps, "is_available", lambda: False)
        self.patch.setattr(torch, "get_num_threads", lambda: threads)
        self.patch.setattr(os, "cpu_count", lambda: cores)
        self.patch.setattr(machine, "_bf16_is_faster", bf16)


@pytest.fixture
def ask(tmp_path, monkeypatch) -> Asking:
    return Asking(tmp_path, monkeypatch)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("this was resolved anew")


def default_name(**values: Any) -> str:
    return TrainingConfig.preset("smoke", **{**SMALL, **values}).default_run_name("colours")


def keep_epochs(run: Run, count: int, planned: int = 4, finished: bool = False) -> None:
    """A checkpoint after that many epochs, complete where they are all; `finished`: and a summary."""
    logits = torch.zeros(10, 3) if count == planned else None
    Checkpoint(run.config(), planned, records(count), {"weights": torch.zeros(1)}, None, None, None, {}, logits).save(
        run.checkpoint_file
    )
    if finished:
        run.write_summary(records(count), run.config(), "colours", 0, complete=count == planned)


# ---- a folder is made, and found again -------------------------------------------------------------------------------


def test_a_new_run_gets_a_folder_with_everything_resolved_in_it(tmp_path, ask):
    ask.machine(threads=3, bf16=lambda: True)
    asked = {**OPEN, "max_lr": "auto", "output_dir": str(tmp_path / "deep" / "runs")}
    prepared = ask(data_root="there", **asked)
    folder, config = prepared.run.folder, prepared.config
    found = {"dataset": "colours", "device": "cpu", "precision": "bf16", "engine": "device", "workers": 0, "threads": 3}
    found |= {"image_size": 32, "fit": "crop", "pretrained": False, "stream": False}
    requested = TrainingConfig.preset("smoke", **{**SMALL, **asked})
    assert config.to_dict() == {**requested.to_dict(), **found, "horizontal_flip": 0.5}
    assert config.max_lr == "auto"  # the range test needs the model
    assert folder == tmp_path / "deep" / "runs" / default_name(**asked)
    assert json.loads((folder / "config.json").read_text()) == config.to_dict()
    assert files(folder) == ["config.json", "data.json"]
    assert (prepared.train.split, len(prepared.train), prepared.test.split, len(prepared.test)) == ("train", 24, "test", 10)
    assert (ask.loaded, ask.lines) == ([("auto", "there")], [])


@pytest.mark.parametrize("name", [None, "mine"])
def test_the_same_values_find_what_the_machine_decided_then(name, tmp_path, ask, monkeypatch):
    ask.machine(threads=2, bf16=lambda: True)
    values = {**OPEN, "max_lr": "auto", "run_name": name}
    first = ask(**values)
    assert first.run.name == (name or default_name(**values))
    found = {"device": "cpu", "precision": "bf16", "workers": 0, "threads": 2, "horizontal_flip": 0.5, "max_lr": "auto"}
    assert first.config == first.config.replace(**found)
    first.run.write_config(first.config.replace(max_lr=0.03125))

    ask.machine(gpus=1, cores=64, threads=32, bf16=never)  # now "auto" would be cuda:0, 2 workers, 32 threads
    with monkeypatch.context() as patch, untouched(tmp_path):
        patch.setattr(preparation, "prepare_config", never)
        patch.setattr(torch.cuda, "get_device_capability", never)
        second = ask(**values)
    assert (second.run, second.config) == (first.run, first.config.replace(max_lr=0.03125))
    assert ask.lines == [NOT_BEGUN.format(first.run.folder)]
    other = ask(max_lr="auto", precision="bf16", seed=1)
    assert (other.run == first.run, ask.lines) == (False, [])


@pytest.mark.parametrize("done", [1, 2])
def test_a_stopped_run_is_announced_with_its_planned_epochs(done, tmp_path, ask, capsys):
    values = {"epochs": None, "train_images": 60}  # 24 + 24 + 12 images
    run = ask(**values).run
    keep_epochs(run, done, planned=3)
    with untouched(tmp_path):
        assert ask(**values).run == run
        prepare("smoke", **{**SMALL, **values, "output_dir": str(tmp_path)})
    sentence = f"Going on with {run.folder}: {done} of 3 epochs are done."
    assert ask.lines == [sentence]
    printed = capsys.readouterr().out  # where no report is given
    assert printed.split() == sentence.split()
    assert all(len(line) <= 100 or " " not in line for line in printed.splitlines())


@pytest.mark.parametrize("name", [None, "mine"])
def test_without_resume_a_run_starts_in_a_new_folder_and_the_old_one_is_left(name, ask):
    first = ask(resume=False, run_name=name)
    keep_epochs(first.run, 2)
    with untouched(first.run.folder):
        second, third = ask(resume=False, run_name=name), ask(resume=False, run_name=name)
    assert ask.lines == []
    assert (second.run.name, third.run.name) == (f"{first.run.name}-2", f"{first.run.name}-3")
    assert files(second.run.folder) == files(third.run.folder) == ["config.json", "data.json"]
    assert second.run.config() == second.config == first.config.replace(run_name=second.run.name)
    ask(run_name=second.run.name)  # how that one goes on
    assert ask.lines == [NOT_BEGUN.format(second.run.folder)]


def test_an_automatic_preset_is_the_one_that_was_stored(ask, monkeypatch):
    ask.machine()
    first = ask("auto", run_name="mine")
    assert first.config.preset_name == "cpu"
    ask.machine(gpus=1)
    assert TrainingConfig.preset("auto").preset_name == "fast"
    monkeypatch.setattr(torch.cuda, "is_available", never)
    second = ask("auto", run_name="mine")
    assert (second.config, second.run) == (first.config, first.run)


def test_a_small_data_set_gets_the_preset_that_suits_it(ask):
    ask.machine(gpus=1)
    of_the_preset = dict.fromkeys(("epochs", "resolutions", "batch_size", "max_lr"))
    assert ask("auto", **of_the_preset).config.preset_name == "cpu"
    assert ask("auto", **{**of_the_preset, "epochs": 200}).config.preset_name == "fast"  # a step each
    assert ask.lines == []
    config = ask("fast", **of_the_preset).config
    assert (config.preset_name, config.epochs) == ("fast", 13)
    said = "Note: the preset 'fast' takes only 13 steps on these 24 images; preset='cpu' suits a small data set better."
    assert ask.lines == [said]


def test_an_automatic_data_set_is_the_one_that_was_stored(ask):
    for values in ({"data_root": "there"}, {"data_root": "there"}, {"dataset": "auto"}, {"dataset": "colours"}):
        assert ask(run_name="mine", **values).run.config().dataset == "colours"
    ask(run_name="mine", resume=False)
    assert ask.loaded == [("auto", "there"), ("colours", "there"), ("colours", None), ("colours", None), ("auto", None)]


def test_a_folder_that_was_moved_goes_on_where_it_is_now(tmp_path, ask):
    first = ask(output_dir=str(tmp_path / "old"), run_name="mine")
    (tmp_path / "new").mkdir()
    first.run.folder.rename(tmp_path / "new" / "renamed")
    again = ask(output_dir=str(tmp_path / "new"), run_name="renamed")
    assert again.run.folder == tmp_path / "new" / "renamed"
    assert again.config == first.config.replace(output_dir=str(tmp_path / "new"), run_name="renamed")


def test_a_tilde_in_output_dir_is_the_home_folder(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    first = ask(output_dir="~/runs")
    assert first.run.folder.parent == tmp_path / "home" / "runs"
    assert ask(output_dir="~/runs").run == first.run
    assert files(tmp_path) == ["home"]


# ---- on another machine ----------------------------------------------------------------------------------------------

GPU = {"device": "cuda:0", "precision": "fp16"}
PROCESSOR = {"device": "cpu", "precision": "fp32"}


@pytest.mark.parametrize(
    ("now", "stored", "asked", "changes"),
    [
        ({}, {**GPU, "workers": 2}, OPEN, PROCESSOR),
        ({"gpus": 1}, GPU, {"device": "cpu", "precision": "auto"}, PROCESSOR),
        ({"gpus": 2}, {"device": "cuda:1"}, {"device": "cpu"}, {"device": "cpu"}),
        ({"threads": 3}, {"threads": 8}, {}, {"threads": 3}),  # fewer cores than threads: what PyTorch finds
        ({"threads": 3, "cores": None}, {"threads": 8}, {}, {"threads": 3}),  # not known how many
        ({"threads": 3, "cores": 8}, {"threads": 8}, {}, {}),
        ({"threads": 3, "cores": 64}, {"threads": 8}, {}, {}),
        ({"threads": 3, "cores": 64}, {"threads": 8}, {"threads": 5}, {"threads": 5}),  # another number asked for
        ({"threads": 3}, {"threads": 8}, {"threads": 6}, {"threads": 6}),  # even one beyond the cores
        ({"threads": 3}, {"threads": 8}, {"threads": 8}, {}),  # or the old one
    ],
)
def test_what_this_machine_lacks_or_a_person_asks_for_replaces_what_is_stored(now, stored, asked, changes, tmp_path, ask):
    ask.machine()
    first = ask(**{**asked, "threads": "auto"})
    config = first.config.replace(**stored)
    first.run.write_config(config)
    ask.machine(**now)
    with untouched(tmp_path):
        second = ask(**asked)
    assert (second.run, second.config) == (first.run, config.replace(**changes))
    changed = ", ".join(f"{name} {value!r} instead of {stored[name]!r}" for name, value in changes.items())
    said = f"This goes on with {changed}: the result will not be bit-identical to that of a run in one go."
    assert ask.lines == [*([said] if changes else []), NOT_BEGUN.format(first.run.folder)]


def test_a_run_goes_on_without_a_graph_where_that_is_asked_for(ask):
    first, second = ask(), ask(cuda_graph=False)
    assert second.run == first.run
    assert (first.config.cuda_graph, second.config.cuda_graph) == (True, False)


# ---- a finished run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False])
def test_a_finished_run_is_found_without_a_word_also_where_its_device_is_missing(by_name, tmp_path, ask):
    ask.machine(threads=2)
    first = ask(**OPEN)
    keep_epochs(first.run, 4, finished=True)
    first.run.write_config(first.config.replace(**GPU, workers=2))
    ask.machine(threads=1, cores=1)
    with untouched(tmp_path):
        shown = ask(**(OPEN if by_name else {"finished_run": str(first.run.folder)}))
    assert (shown.run, shown.run.finished, ask.lines) == (first.run, True, [])
    assert shown.config == first.config.replace(workers=2, threads=1)
    assert resolve_device(shown.config.device) == torch.device("cpu")  # build_model and gradcam work there


def test_a_finished_run_is_shown_whatever_the_other_values_are(tmp_path, ask):
    first = ask(run_name="mine")
    keep_epochs(first.run, 4, finished=True)
    others = {"seed": 9, "output_dir": str(tmp_path / "elsewhere"), "run_name": "another", "epochs": 1}
    unused = f"{first.run.folder} is finished and shown as it was trained, so that these values are not used: "
    for resume in (True, False):
        with untouched(tmp_path):
            shown = ask("cpu", data_root="there", resume=resume, finished_run=str(first.run.folder), **others)
        assert (shown.run, shown.config) == (first.run, first.config)
        assert ask.loaded[-1] == ("colours", "there")
        (line,) = ask.lines
        assert line.startswith(f"{unused}preset 'cpu' (the run has 'smoke'), epochs 1 (the run has 4)")
        assert all(said in line for said in ("seed 9 (the run has 0)", "run_name 'another' (the run has 'mine')", "elsewhere"))
        assert line.endswith(", resume False.") is not resume
        assert "max_lr" not in line  # it is the run's


def test_a_finished_run_without_whole_weights_is_refused_before_any_work(ask):
    run = ask().run
    keep_epochs(run, 4, finished=True)
    whole = run.checkpoint_file.read_bytes()
    ask.loaded.clear()
    for content in (b"", whole[: len(whole) // 2]):
        run.checkpoint_file.write_bytes(content)
        said = ask.refusal(FileNotFoundError, finished_run=str(run.folder))
        assert "put back a copy of that file, give another run, or leave finished_run out" in said
    run.checkpoint_file.write_bytes(whole)
    prune(run.folder, "none")
    ask.loaded.clear()
    said = ask.refusal(RunError, finished_run=str(run.folder))
    assert "holds no weights any more" in said
    assert "leave finished_run out and set resume=False to train it again" in said
    assert ask.loaded == []
    found = ask()  # by its values, where finished_run is nothing to leave out
    with pytest.raises(RunError, match=r"to have its network, set resume=False to train it again in a new folder\.$"):
        found.build_model()
    assert found.build_model(quiet, False) is not None  # for a range test, which needs none


def test_a_finished_run_is_not_shown_for_another_data_set(ask):
    first = ask(run_name="mine")
    keep_epochs(first.run, 4, finished=True)
    ask.loaded.clear()
    said = ask.refusal(RunError, dataset="cifar10", finished_run=str(first.run.folder))
    assert said.startswith(
        f"{first.run.folder} was trained on 'colours', and dataset is 'cifar10': leave it out to show this run"
    )
    assert ask.loaded == []


def test_a_finished_run_that_is_none_is_refused(tmp_path, ask):
    run = ask().run
    ask.loaded.clear()
    sentence = "{} is not the folder of a finished run: it has no checkpoint.pt; give one that has, or train a new one."
    for folder in (run.folder, tmp_path / "nowhere"):
        assert ask.refusal(FileNotFoundError, finished_run=str(folder)) == sentence.format(folder)
    keep_epochs(run, 2, finished=True)
    assert "it was stopped before its end" in ask.refusal(FileNotFoundError, finished_run=str(run.folder))
    assert ask.loaded == []


# ---- what is refused -------------------------------------------------------------------------------------------------

DIFFERENT = [
    ({"seed": 1}, "seed 0 (here 1)"),
    (
        {"seed": 1, "label_smoothing": 0.2, "batch_size": 16, "resolutions": [(8, 0.5), (10, 0.5)], "test_time_flip": True},
        "resolutions [[8, 1.0]] (here [[8, 0.5], [10, 0.5]]), batch_size 8 (here 16), label_smoothing 0.0 (here 0.2), "
        "test_time_flip False (here True), seed 0 (here 1)",
    ),
    ({"epochs": None, "train_images": 60}, "epochs 4 (here None), train_images None (here 60)"),
    ({"precision": "bf16", "max_lr": 0.5}, "max_lr 0.1 (here 0.5), precision 'fp32' (here 'bf16')"),
]


@pytest.mark.parametrize(("changes", "differences"), DIFFERENT, ids=[differences for _, differences in DIFFERENT])
def test_a_name_that_belongs_to_another_configuration_is_refused_with_all_differences(changes, differences, ask):
    run = ask(run_name="mine").run
    keep_epochs(run, 2)
    assert ask.refusal(RunError, **changes, run_name="mine") == (
        f"{run.folder} holds a run of another configuration: {differences}. Give another run_name, or set resume=False to train "
        "in a new folder."
    )
    with untouched(run.folder):  # both ways out lead out
        assert ask(**changes, run_name="other").run.name == "other"
        assert ask(**changes, run_name="mine", resume=False).run.name == "mine-2"
    assert ask.lines == []


NO_TABLE = "A configuration is a table of names and values, not {}."
NO_PRESET = "A configuration needs preset_name: choose one of 'original', 'fast', 'best', 'cpu', 'finetune', 'scratch', 'smoke'."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "[Errno 2] No such file or directory: {!r}"),
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ('{"seed": ', "Expecting value: line 1 column 10 (char 9)"),
        ("null", NO_TABLE.format(None)),
        ("3", NO_TABLE.format(3)),
        ("[]", NO_TABLE.format([])),
        ('{"seed": 1}', NO_PRESET),
        ('{"preset_name": "smoke", "sed": 1}', "Unknown parameter 'sed': did you mean 'seed'?"),
        ('{"preset_name": "smoke", "epochs": 0}', "epochs is 0; give a whole number from 1 to 10000."),
    ],
)
@pytest.mark.parametrize("preset", ["smoke", "auto"])
def test_a_folder_without_a_usable_configuration_is_refused(preset, text, problem, tmp_path, ask):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    if text is not None:
        (folder / "config.json").write_text(text)
    assert ask.refusal(RunError, preset, run_name="mine") == (
        f"{folder} is there, but its config.json cannot be used ({problem.format(str(folder / 'config.json'))}): move the folder "
        "away, give another run_name, or set resume=False to train in a new folder."
    )
    assert ask(preset, run_name="mine", resume=False).run.name == "mine-2"


@pytest.mark.parametrize("name", [None, "mine"])
def test_an_empty_folder_is_used_and_one_without_a_configuration_is_not(name, tmp_path, ask):
    folder = tmp_path / (name or default_name())
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    assert "is there, but its config.json cannot be used ([Errno 2]" in ask.refusal(RunError, run_name=name)
    (folder / "notes.txt").rename(folder / ".config.json.1-2.tmp")  # of a process that was killed while it made the folder
    prepared = ask(run_name=name)
    assert prepared.run.folder == folder
    assert prepared.run.config() == prepared.config


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "is empty"), (b"PK\x03\x04 half", "is cut short or is no checkpoint")], ids=["empty", "none"]
)
def test_a_run_whose_checkpoint_is_broken_is_refused(content, problem, ask):
    file = ask().run.checkpoint_file
    file.write_bytes(content)
    way_out = "the file is left as it is: move it away, or set resume=False to train in a new folder."
    assert ask.refusal(CheckpointError) == f"{file} {problem}; {way_out}"


A_NAME = (
    "give a folder name of at most 200 bytes without slashes, quotes, line breaks and : * ? < > |, with no space at its ends and "
    "no dot at its start."
)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "fats"}, "Unknown preset 'fats': did you mean 'fast' or 'auto'?"),
        ({"bach_size": 8}, "Unknown parameter 'bach_size': did you mean 'batch_size' or 'image_size'?"),
        (
            {"batch_size": 1, "seed": -1},
            "batch_size is 1; give a whole number from 2 to 65536. seed is -1; give a whole number from 0 to 4294967295.",
        ),
        ({"device": "cuda:7"}, "device is 'cuda:7', but this machine has 0 CUDA GPUs; use 'auto' or 'cpu'."),
        ({"device": "mps"}, "device is 'mps', but PyTorch finds no Apple GPU here; use 'auto' or 'cpu'."),
        ({"precision": "fp16"}, "precision is 'fp16' on cpu; it needs a CUDA GPU: use 'auto', 'fp32' or 'bf16'."),
        ({"resume": "yes"}, "resume is 'yes'; give True or False."),
        ({"resume": None}, "resume is None; give True or False."),
        ({"resume": 1, "finished_run": "somewhere"}, "resume is 1; give True or False."),
        ({"run_name": "a/b"}, f"run_name is 'a/b'; {A_NAME}"),
        ({"run_name": 7}, f"run_name is 7; {A_NAME}"),
        ({"run_name": "x" * 300}, f"run_name is {'x' * 300!r}; {A_NAME}"),
        (
            {"output_dir": "x" * 300},
            f"output_dir {'x' * 300!r} cannot be used (File name too long): give a folder that can be written.",
        ),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_bad_value_is_refused_before_any_data_is_loaded(values, message, resume, tmp_path, ask):
    ask.machine()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ask(**{"resume": resume, **values})
    assert (ask.loaded, files(tmp_path)) == ([], [])


@pytest.mark.parametrize("error", [FileNotFoundError("no such data"), DatasetError("data_batch_1 is corrupt")])
def test_data_that_cannot_be_used_leaves_no_folder(error, tmp_path, ask, monkeypatch):
    def load(name: str, root: str | None) -> None:
        raise error

    monkeypatch.setattr(datasets, "load", load)
    assert ask.refusal(type(error), output_dir=str(tmp_path / "runs")) == str(error)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_folder_that_cannot_be_made_is_refused_before_data_is_loaded(below, tmp_path, ask, monkeypatch):
    (tmp_path / "taken").write_text("precious")
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("the data was loaded"))
    root = str(tmp_path / "taken" / below)
    message = f"output_dir {root!r} cannot be used ({tmp_path / 'taken'} is no folder): give a folder that can be written."
    assert ask.refusal(RunError, output_dir=root) == message
    assert (tmp_path / "taken").read_text() == "precious"
