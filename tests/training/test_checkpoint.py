"""Checkpoints: every value comes back with the same bits; broken and hostile files are refused, never run and never touched."""

import dataclasses
import errno
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import plan, tiny_network
from torch import Tensor, nn

from era_support_packages.training.checkpoint import FORMAT, Checkpoint, CheckpointError, random_state, restore_random_state
from era_support_packages.training.history import EpochRecord
from era_support_packages.training.setup import build_optimizer, build_scheduler
from era_support_packages.training.step import TrainingStep

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
CONFIG = plan(epochs=3, resolutions=((8, 0.7), (10, 0.3)), threads=1)
RECORDS = (
    EpochRecord(1, 8, 24, 0.05, 2.25, 12.5, 2.125, 33.5, 67, 200, 1.5),
    EpochRecord(2, 8, 24, 4e-06, 1.0 / 3, 100.0, 0.1, 66.0, 132, 200, 2.25),
)
WAY_OUT = "the file is left as it is: move it away, or set resume=False to train in a new folder."
BROKEN = "is cut short or is no checkpoint"
FOREIGN = "is not a checkpoint of this package"
DAMAGED = "is damaged (the checksum of FILE does not fit)"
NOT_RUN = "holds something other than tensors and plain values, and was not executed"


def midway() -> Checkpoint:
    """A run after two of three epochs: the state of a real optimizer and schedule three steps on, and of an fp16 scaler."""
    model = tiny_network()
    optimizer = build_optimizer(model, CONFIG)
    step = TrainingStep(model, optimizer, CONFIG, build_scheduler(optimizer, CONFIG, steps=9))
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)
    for _ in range(3):
        step(images, torch.arange(8) % 3)
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}
    return Checkpoint(
        config=CONFIG,
        planned=3,
        records=RECORDS,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        scheduler=step.scheduler.state_dict(),
        scaler=scaler,
        random_state={"cpu": torch.get_rng_state(), "cuda": torch.arange(16, dtype=torch.uint8)},
        logits=None,
    )


def at_the_end() -> Checkpoint:
    """The same run complete."""
    logits = torch.linspace(-3, 5, 15).reshape(5, 3)
    return dataclasses.replace(midway(), planned=2, optimizer=None, scheduler=None, scaler=None, logits=logits)


def same(one: Any, other: Any) -> bool:
    """Whether two nested values have the same types, keys in the same order, and tensors the same dtype, layout and bits."""
    if isinstance(one, Tensor):
        layout = (one.dtype, one.shape, one.stride())
        return isinstance(other, Tensor) and layout == (other.dtype, other.shape, other.stride()) and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run after two of three epochs."""
    path = tmp_path_factory.mktemp("good") / "checkpoint.pt"
    midway().save(path)
    return path.read_bytes()


# ---- round trip ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [midway, at_the_end])
def test_every_value_comes_back(build: Callable[[], Checkpoint], tmp_path: Path) -> None:
    before, path = build(), tmp_path / "checkpoint.pt"
    before.save(path)
    loaded = Checkpoint.load(path)
    assert files(tmp_path) == ["checkpoint.pt"]
    for name in ("config", "planned", "records"):
        assert getattr(loaded, name) == getattr(before, name), name
    for name in ("optimizer", "scheduler", "scaler", "random_state", "logits"):
        assert same(getattr(loaded, name), getattr(before, name)), name
    assert same(loaded.model, {name: value.contiguous() for name, value in before.model.items()})
    assert isinstance(loaded.records, tuple)
    assert loaded.complete is before.complete is (build is at_the_end)


def test_tensors_keep_their_dtype_and_the_optimizer_its_layout(tmp_path: Path) -> None:
    before, path = midway(), tmp_path / "checkpoint.pt"
    extra = {
        "half": torch.tensor([1.5, -0.0, float("inf")], dtype=torch.bfloat16),
        "double": torch.tensor(1 / 3, dtype=torch.float64),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 4),
    }
    dataclasses.replace(before, model={**before.model, **extra}).save(path)
    loaded = Checkpoint.load(path)
    assert all(same(loaded.model[name], value) for name, value in extra.items())
    assert loaded.model["norm.num_batches_tracked"].dtype == torch.int64
    assert loaded.model["norm.num_batches_tracked"].item() == 3
    momenta = [state["momentum_buffer"] for state in loaded.optimizer["state"].values()]
    assert [(tuple(momentum.shape), momentum.stride()) for momentum in momenta[:1]] == [((8, 3, 3, 3), (27, 1, 9, 3))]
    assert all(momentum.abs().sum() > 0 for momentum in momenta)
    assert loaded.scheduler["last_epoch"] == 3


def test_saving_leaves_the_live_model_as_it_is(tmp_path: Path) -> None:
    model = tiny_network()
    dataclasses.replace(midway(), model=model.state_dict(keep_vars=True)).save(tmp_path / "checkpoint.pt")
    assert model.conv.weight.stride() == (27, 1, 9, 3)
    assert model.conv.weight.requires_grad
    loaded = Checkpoint.load(tmp_path / "checkpoint.pt").model["conv.weight"]
    assert loaded.stride() == (27, 9, 3, 1)
    assert not loaded.requires_grad
    assert torch.equal(loaded, model.conv.weight)


def test_the_file_holds_tensors_and_plain_values_only(good: bytes) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    assert sorted(content) == sorted([*(field.name for field in dataclasses.fields(Checkpoint)), "format"])
    assert content["format"] == FORMAT == 3
    assert content["config"] == CONFIG.to_dict()
    assert content["records"][0] == {
        "epoch": 1,
        "resolution": 8,
        "images": 24,
        "lr": 0.05,
        "train_loss": 2.25,
        "train_accuracy": 12.5,
        "test_loss": 2.125,
        "test_accuracy": 33.5,
        "test_correct": 67,
        "test_total": 200,
        "seconds": 1.5,
    }
    assert len(content["records"]) == 2


def test_a_later_checkpoint_takes_the_place_of_the_earlier_one(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(good)
    at_the_end().save(path)
    assert Checkpoint.load(path).complete
    assert files(tmp_path) == ["checkpoint.pt"]


# ---- files that are refused ------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """What is said of a file that must be refused; the file and its folder must be as before."""
    before = (path.read_bytes(), path.stat().st_mtime_ns, files(path.parent))
    with pytest.raises(CheckpointError) as raised:
        Checkpoint.load(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns, files(path.parent)) == before
    return str(raised.value)


def a_zip(_: bytes) -> bytes:
    """An archive of something else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "hello")
    return buffer.getvalue()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "four bytes left": (lambda good: good[:4], BROKEN),
    "its beginning left": (lambda good: good[:100], BROKEN),
    "its first kilobyte left": (lambda good: good[:1024], BROKEN),
    "half of it left": (lambda good: good[: len(good) // 2], BROKEN),
    "without the zip directory": (lambda good: good[: good.index(b"PK\x01\x02")], BROKEN),
    "without the end of the zip directory": (lambda good: good[:-22], BROKEN),
    "the last byte missing": (lambda good: good[:-1], BROKEN),
    "zeros": (lambda good: bytes(len(good)), BROKEN),
    "another archive": (a_zip, BROKEN),
    "a web page": (lambda _: b"<!DOCTYPE html><title>404 Not Found</title>", BROKEN),
    "a table": (lambda _: b"epoch,lr\n1,0.05\n", BROKEN),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_broken_file_is_refused_and_left_alone(name: str, good: bytes, tmp_path: Path) -> None:
    damage, problem = DAMAGE[name]
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(good))
    assert refusal(path) == f"{path} {problem}; {WAY_OUT}"


def test_a_file_cut_anywhere_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for length in [*range(4, len(good), 307), *range(len(good) - 60, len(good), 7)]:
        path.write_bytes(good[:length])
        assert refusal(path) == f"{path} {BROKEN}; {WAY_OUT}", length


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    generator = np.random.default_rng(0)
    for length in (1, 2, 3, 8, 50, 2000) * 25:
        path.write_bytes(generator.bytes(length))
        assert refusal(path) in (f"{path} {BROKEN}; {WAY_OUT}", f"{path} {NOT_RUN}; {WAY_OUT}")


def test_one_flipped_bit_in_the_weights_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(good)
    weights = next(iter(Checkpoint.load(path).model.values())).numpy().tobytes()
    damaged = bytearray(good)
    damaged[good.index(weights) + len(weights) // 2] ^= 1
    path.write_bytes(damaged)
    said = refusal(path)
    assert re.sub(r"checksum of \S+/data/\d+ does", "checksum of FILE does", said) == f"{path} {DAMAGED}; {WAY_OUT}"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bytes_are_refused_with_a_sentence_or_harmless(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    generator = np.random.default_rng(0)
    first, last = good.index(b"data.pkl"), good.index(b"PK\x03\x04", 4)  # the pickle; what follows are tensors
    said = []
    for _ in range(300):
        damaged = bytearray(good)
        for place in generator.integers(first, last, 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            Checkpoint.load(path)
        except CheckpointError as error:
            said.append(str(error))
    assert len(said) > 270  # the others hit nothing but padding, or changed nothing
    sentences = {f"{path} {problem}; {WAY_OUT}" for problem in (BROKEN, NOT_RUN, DAMAGED)}
    assert {re.sub(r"checksum of \S+ does", "checksum of FILE does", sentence) for sentence in said} <= sentences


def test_a_file_that_is_not_there_is_no_broken_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt"):
        Checkpoint.load(tmp_path / "checkpoint.pt")


# ---- files that try to run code --------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.trace), "w")


def plain_pickle(payload: Payload, _: bytes) -> bytes:
    return pickle.dumps(payload, protocol=2)


def saved_by_torch(payload: Payload, _: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def hidden_in_a_checkpoint(payload: Payload, good: bytes) -> bytes:
    content, buffer = torch.load(io.BytesIO(good), weights_only=True), io.BytesIO()
    content["optimizer"]["state"][0]["momentum_buffer"] = payload
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("build", [plain_pickle, saved_by_torch, hidden_in_a_checkpoint])
def test_code_in_a_file_is_not_run(build: Callable[[Payload, bytes], bytes], good: bytes, tmp_path: Path) -> None:
    path, trace = tmp_path / "run" / "checkpoint.pt", tmp_path / "trace"
    path.parent.mkdir()
    path.write_bytes(build(Payload(trace), good))
    assert refusal(path) == f"{path} {NOT_RUN}; {WAY_OUT}"
    assert not trace.exists()
    if build is plain_pickle:  # it would work
        pickle.loads(path.read_bytes()).close()
    else:
        torch.load(path, weights_only=False)
    assert trace.exists()


# ---- well-formed files that are something else -----------------------------------------------------------------------


def with_config(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """The content with other values in its configuration; a value of ... is left out."""

    def change(content: dict[str, Any]) -> dict[str, Any]:
        config = {**content["config"], **changes}
        return {**content, "config": {name: value for name, value in config.items() if value is not ...}}

    return change


def with_record(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """The content with other values in its last record; a value of ... is left out."""

    def change(content: dict[str, Any]) -> dict[str, Any]:
        record = {name: value for name, value in {**content["records"][-1], **changes}.items() if value is not ...}
        return {**content, "records": [content["records"][0], record]}

    return change


def having(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """The content with other values."""
    return lambda content: {**content, **changes}


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    """The content without one of its values."""
    return lambda content: {key: value for key, value in content.items() if key != name}


NEEDED = [field.name for field in dataclasses.fields(Checkpoint) if field.name not in ("classifier", "data")]
FOREIGN_CONTENT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "weights only": (lambda content: content["model"], FOREIGN),
    "a dict of another kind": (lambda content: {"state_dict": content["model"], "epoch": 3}, FOREIGN),
    "an empty dict": (lambda _: {}, FOREIGN),
    "a list": (lambda content: list(content["model"].values()), FOREIGN),
    "an empty list": (lambda _: [], FOREIGN),
    "a tensor": (lambda _: torch.zeros(3), FOREIGN),
    "a number": (lambda _: 2, FOREIGN),
    "text": (lambda _: "format", FOREIGN),
    "None": (lambda _: None, FOREIGN),
    "an earlier format": (having(format=1), "has format 1, and this version reads formats 2 and 3"),
    "a later format": (having(format=4), "has format 4, and this version reads formats 2 and 3"),
    "a format as text": (having(format="2"), "has format '2', and this version reads formats 2 and 3"),
    "a tensor as format": (having(format=torch.tensor([2, 2])), FOREIGN),
    **{f"no {name}": (without(name), FOREIGN) for name in NEEDED},
    "a value of the configuration that is bad": (with_config(epochs=0), FOREIGN),
    "an unknown name in the configuration": (with_config(epoch=3), FOREIGN),
    "a configuration without its preset": (with_config(preset_name=...), FOREIGN),
    "a list as configuration": (having(config=[1, 2]), FOREIGN),
    "no value as configuration": (having(config=None), FOREIGN),
    "a tensor in the configuration": (with_config(model=torch.tensor([1, 2])), FOREIGN),
    "a record with a missing field": (with_record(seconds=...), FOREIGN),
    "a record with one too many": (with_record(minutes=1.0), FOREIGN),
    "records that are numbers": (having(records=[1, 2]), FOREIGN),
    "no value as records": (having(records=None), FOREIGN),
    "weights that are numbers": (having(model={"conv.weight": 1.5}), FOREIGN),
    "weights in a list": (having(model=[torch.zeros(3)]), FOREIGN),
    "logits that are no tensor": (having(logits=[[0.0, 1.0]]), FOREIGN),
    "an unplanned number of epochs": (having(planned="three"), FOREIGN),
    "a fingerprint that is none": (having(data={"name": "x"}), FOREIGN),
}


@pytest.mark.parametrize("name", FOREIGN_CONTENT)
def test_a_file_with_other_content_is_refused_and_left_alone(name: str, good: bytes, tmp_path: Path) -> None:
    change, problem = FOREIGN_CONTENT[name]
    path = tmp_path / "checkpoint.pt"
    torch.save(change(torch.load(io.BytesIO(good), weights_only=True)), path)
    assert refusal(path) == f"{path} {problem}; {WAY_OUT}"


def test_the_changed_contents_differ_from_a_good_one_only_in_what_is_changed(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    content = torch.load(io.BytesIO(good), weights_only=True)
    torch.save(with_record(seconds=9.0)(with_config(epochs=5)(having(planned=5)(content))), path)
    loaded = Checkpoint.load(path)
    assert (loaded.planned, loaded.config) == (5, CONFIG.replace(epochs=5))
    assert loaded.records == (RECORDS[0], dataclasses.replace(RECORDS[1], seconds=9.0))


# ---- writes that fail ------------------------------------------------------------------------------------------------


class CannotBeWritten:
    """Raises while it is serialised."""

    def __reduce__(self) -> Any:
        raise RuntimeError("this cannot be written")


@pytest.mark.parametrize("earlier", [True, False], ids=["with an earlier one", "the first"])
def test_a_value_that_cannot_be_serialized_leaves_the_earlier_checkpoint(earlier: bool, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    if earlier:
        path.write_bytes(good)
    state = midway()
    state.optimizer["state"][2]["momentum_buffer"] = CannotBeWritten()
    with pytest.raises(RuntimeError, match=r"^this cannot be written$"):
        state.save(path)
    assert files(tmp_path) == (["checkpoint.pt"] if earlier else [])
    if earlier:
        assert path.read_bytes() == good
        assert Checkpoint.load(path).records == RECORDS


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_fails_midway_leaves_the_earlier_checkpoint(
    function: str, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(good)
    later = at_the_end()
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        later.save(path)
    assert path.read_bytes() == good
    assert not Checkpoint.load(path).complete
    assert files(tmp_path) == ["checkpoint.pt"]


def test_a_full_disk_leaves_the_earlier_checkpoint(good: bytes, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(good)
    code = """
import dataclasses, os, resource, signal, sys
from pathlib import Path
from era_support_packages.training.checkpoint import Checkpoint
path = Path(sys.argv[1])
later = dataclasses.replace(Checkpoint.load(path), planned=7)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    later.save(path)
except OSError as error:
    print(error.errno, os.listdir(path.parent), Checkpoint.load(path).planned)
"""
    command = [sys.executable, "-c", code, str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{errno.EFBIG} ['checkpoint.pt'] 3\n"
    assert path.read_bytes() == good
    assert files(tmp_path) == ["checkpoint.pt"]


# ---- the network it belongs to ---------------------------------------------------------------------------------------


def test_the_own_network_is_accepted() -> None:
    midway().check_network(tiny_network(seed=5), Path("checkpoint.pt"))


@pytest.mark.parametrize(
    "other",
    [
        tiny_network(classes=4),
        tiny_network(width=9),
        nn.Sequential(),
        nn.Sequential(tiny_network()),
        nn.Sequential(*tiny_network()),
    ],
    ids=["classes", "width", "nothing", "deeper names", "numbers as names"],
)
def test_another_network_is_refused_and_left_alone(other: nn.Module) -> None:
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        midway().check_network(other, Path("runs/mine/checkpoint.pt"))
    path = Path("runs/mine/checkpoint.pt")
    assert str(raised.value) == f"{path} holds the weights of another network; build the model of its config.json."
    assert same(dict(other.state_dict()), before)


# ---- random state ----------------------------------------------------------------------------------------------------


def test_random_numbers_go_on_where_the_state_was_taken(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        torch.rand(3)
        dataclasses.replace(midway(), random_state=random_state(CPU)).save(tmp_path / "checkpoint.pt")
        expected = torch.rand(5)
        torch.manual_seed(9)
        state = Checkpoint.load(tmp_path / "checkpoint.pt").random_state
        restore_random_state(state, CPU)
        assert torch.equal(torch.rand(5), expected)
    assert list(state) == ["cpu"]


def test_a_gpu_has_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, calls = torch.device("cuda", 1), []
    drawn = torch.arange(16, dtype=torch.uint8)

    def get(device: torch.device) -> Tensor:
        calls.append(("get", device))
        return drawn

    monkeypatch.setattr(torch.cuda, "get_rng_state", get)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: calls.append(("set", device, state.tolist())))
    state = random_state(gpu)
    assert list(state) == ["cpu", "cuda"]
    assert torch.equal(state["cpu"], torch.get_rng_state())
    restore_random_state(state, gpu)
    assert calls == [("get", gpu), ("set", gpu, list(range(16)))]
    restore_random_state(state, CPU)  # taken on a GPU, gone on without one
    restore_random_state({"cpu": state["cpu"]}, gpu)  # and the other way round
    assert len(calls) == 2
