"""Checkpoints: every value comes back with the same bits; broken and hostile files are refused, never run and never touched."""

import copy
import dataclasses
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import Tensor, nn
from torch.testing import assert_close

from era_support_packages.classifier import Classifier, ClassifierError
from era_support_packages.models.catalog import build_network
from era_support_packages.models.resnet import BasicBlock
from era_support_packages.training.checkpoint import FORMAT, Checkpoint, CheckpointError, random_state, restore_random_state
from era_support_packages.training.loop import fit

CPU = torch.device("cpu")
CONFIG = plan(epochs=3, resolutions=((8, 0.7), (10, 0.3)), threads=1)
WAY_OUT = "the file is left as it is: move it away, or set resume=False to train in a new folder."
BROKEN = "is cut short or is no checkpoint"
FOREIGN = "is not a checkpoint of this package"
DAMAGED = "is damaged (the checksum of FILE does not fit)"
NOT_RUN = "holds something other than tensors and plain values, and was not executed"


@pytest.fixture(scope="module")
def states() -> list[Checkpoint]:
    """Of a run after two of three epochs, with the scaler of fp16 and a GPU's generator, and of a complete one."""
    kept: list[Checkpoint] = []
    fit(tiny_network(), colored_images(24), colored_images(5), CONFIG, quiet, lambda state: kept.append(copy.deepcopy(state)))
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}
    generators = {**kept[1].random_state, "cuda": torch.arange(16, dtype=torch.uint8)}
    half, double = torch.tensor([1.5, -0.0, float("inf")], dtype=torch.bfloat16), torch.tensor(1 / 3, dtype=torch.float64)
    kinds = {"half": half, "double": double, "flags": torch.tensor([True, False]), "none": torch.zeros(0, 4)}
    midway = dataclasses.replace(kept[1], scaler=scaler, random_state=generators)
    return [midway, dataclasses.replace(kept[2], model={**kept[2].model, **kinds})]


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
def good(states: list[Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of the run after two of three epochs."""
    path = tmp_path_factory.mktemp("good") / "checkpoint.pt"
    states[0].save(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a checkpoint goes, in a folder of its own."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "checkpoint.pt"


@pytest.mark.parametrize("number", [0, 1], ids=["midway", "at the end"])
def test_every_value_comes_back_in_place_of_an_earlier_one(number: int, states: list[Checkpoint], path: Path) -> None:
    before = copy.deepcopy(states[number])
    weight = before.model["conv.weight"].requires_grad_()  # as `state_dict(keep_vars=True)` has it
    path.write_bytes(b"an earlier one")
    before.save(path)
    loaded = Checkpoint.load(path)
    assert files(path.parent) == ["checkpoint.pt"]
    for field in dataclasses.fields(Checkpoint):
        if field.name != "model":
            assert same(getattr(loaded, field.name), getattr(before, field.name)), field.name
    assert same(loaded.model, {name: value.contiguous() for name, value in before.model.items()})
    assert loaded.complete is before.complete is (number == 1)
    assert (weight.stride(), weight.requires_grad) == ((27, 1, 9, 3), True)
    assert not loaded.model["conv.weight"].requires_grad


def test_the_file_holds_tensors_and_plain_values_only(states: list[Checkpoint], good: bytes) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    assert content.keys() == {"format", *(field.name for field in dataclasses.fields(Checkpoint))}
    assert content["format"] == FORMAT == 3
    assert content["config"] == CONFIG.to_dict()
    assert content["records"] == [record.to_dict() for record in states[0].records]


def refusal(path: Path) -> str:
    """What is said of a file that must be refused; the file and its folder must be as before."""
    before = (path.read_bytes(), path.stat().st_mtime_ns, files(path.parent))
    with pytest.raises(CheckpointError) as raised:
        Checkpoint.load(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns, files(path.parent)) == before
    start, _, rest = str(raised.value).partition(f"{path} ")
    problem, _, way_out = rest.partition("; ")
    assert (start, way_out) == ("", WAY_OUT)
    return re.sub(r"checksum of \S+ does", "checksum of FILE does", problem)


def archive() -> bytes:
    """Of something else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("notes.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        *[(b"", "is empty"), (bytes(5000), BROKEN), (archive(), BROKEN), (b"epoch,lr\n1,0.05\n", BROKEN)],
        (b"<!DOCTYPE html><title>404 Not Found</title>", BROKEN),
    ],
    ids=["empty", "zeros", "another archive", "a table", "a web page"],
)
def test_a_broken_file_is_refused_and_left_alone(content: bytes, problem: str, path: Path) -> None:
    path.write_bytes(content)
    assert refusal(path) == problem


def test_a_file_cut_anywhere_is_refused(good: bytes, path: Path) -> None:
    directory = good.index(b"PK\x01\x02")  # of the zip file; its end has 22 bytes
    for length in [4, 100, 1024, directory, *range(1500, len(good), 900), *range(len(good) - 60, len(good), 7), len(good) - 22]:
        path.write_bytes(good[:length])
        assert refusal(path) == BROKEN, length


def test_one_flipped_bit_in_the_weights_is_refused(good: bytes, path: Path) -> None:
    weights = torch.load(io.BytesIO(good))["model"]["conv.weight"].numpy().tobytes()
    damaged = bytearray(good)
    damaged[good.index(weights) + len(weights) // 2] ^= 1
    path.write_bytes(damaged)
    assert refusal(path) == DAMAGED


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bytes_are_refused_with_a_sentence_or_harmless(good: bytes, path: Path) -> None:
    generator = np.random.default_rng(0)
    first, last = good.index(b"data.pkl"), good.index(b"PK\x03\x04", 4)  # the pickle; what follows are tensors
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        for place in generator.integers(first, last, 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            Checkpoint.load(path)
        except CheckpointError:
            assert refusal(path) in (BROKEN, NOT_RUN, DAMAGED)
            refused += 1
    assert refused > 135  # the others hit nothing but padding, or changed nothing


def test_a_file_that_is_not_there_is_no_broken_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt"):
        Checkpoint.load(path)


class Payload:
    """Unpickled, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("how", ["plain pickle", "saved by torch", "hidden in a checkpoint"])
def test_code_in_a_file_is_not_run(how: str, good: bytes, path: Path, tmp_path: Path) -> None:
    content: Any = Payload(tmp_path / "trace")
    if how == "hidden in a checkpoint":
        content = torch.load(io.BytesIO(good))
        content["optimizer"]["state"][0]["momentum_buffer"] = Payload(tmp_path / "trace")
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    assert refusal(path) == NOT_RUN
    assert not (tmp_path / "trace").exists()
    if how == "plain pickle":  # it would work
        pickle.loads(path.read_bytes()).close()
    else:
        torch.load(path, weights_only=False)
    assert (tmp_path / "trace").exists()


def having(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The values with some changed; one of ... is left out."""
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


NEEDED = [
    field.name for field in dataclasses.fields(Checkpoint) if field.name not in ("classifier", "data", "processes", "average")
]
OTHER_CONTENTS: list[Callable[[dict[str, Any]], Any]] = [
    lambda content: content["model"],
    lambda content: {"state_dict": content["model"], "epoch": 3},
    lambda content: list(content["model"].values()),
    *(lambda _, value=value: value for value in ({}, [], torch.zeros(3), 2, "format", None)),
]
OTHER_VALUES: list[dict[str, Any]] = [
    *({name: ...} for name in NEEDED),
    *({"format": torch.tensor([2, 2])}, {"config": [1, 2]}, {"config": None}, {"records": [1, 2]}, {"records": None}),
    *({"model": {"conv.weight": 1.5}}, {"model": [torch.zeros(3)]}, {"logits": [[0.0, 1.0]]}, {"planned": "three"}),
    {"processes": "two"},
    *({"data": {"name": "x"}}, {"config": having(CONFIG.to_dict(), model=torch.tensor([1, 2]))}),
    *({"config": having(CONFIG.to_dict(), **change)} for change in ({"epochs": 0}, {"epoch": 3}, {"preset_name": ...})),
]
RECORD_CHANGES = [{"seconds": ...}, {"minutes": 1.0}]


@pytest.mark.parametrize(
    "change",
    [
        *OTHER_CONTENTS,
        *(lambda content, new=new: having(content, **new) for new in OTHER_VALUES),
        *(lambda content, new=new: having(content, records=[having(content["records"][0], **new)]) for new in RECORD_CHANGES),
    ],
)
def test_a_file_with_other_content_is_refused_and_left_alone(change: Callable[[Any], Any], good: bytes, path: Path) -> None:
    torch.save(change(torch.load(io.BytesIO(good))), path)
    assert refusal(path) == FOREIGN


@pytest.mark.parametrize("number", [1, 4, "2"], ids=repr)
def test_another_format_is_named(number: object, good: bytes, path: Path) -> None:
    torch.save(having(torch.load(io.BytesIO(good)), format=number), path)
    assert refusal(path) == f"has format {number!r}, and this version reads formats 2 and 3"


def test_other_values_that_are_good_are_read_those_of_format_2_included(good: bytes, path: Path) -> None:
    content = torch.load(io.BytesIO(good))
    records = [content["records"][0], having(content["records"][1], seconds=9.0)]
    older = having(content, format=2, classifier=..., data=..., records=records, planned=5)
    torch.save(having(older, config=having(content["config"], epochs=5)), path)
    loaded = Checkpoint.load(path)
    assert (loaded.planned, loaded.config) == (5, CONFIG.replace(epochs=5))
    assert [record.to_dict() for record in loaded.records] == records
    assert (loaded.classifier, loaded.data) == (None, None)


class CannotBeWritten:
    """Raises while it is serialised."""

    def __reduce__(self) -> Any:
        raise RuntimeError("this cannot be written")


@pytest.mark.parametrize("earlier", [True, False], ids=["with an earlier one", "the first"])
def test_a_value_that_cannot_be_serialized_leaves_the_earlier_checkpoint(
    earlier: bool, states: list[Checkpoint], good: bytes, path: Path
) -> None:
    if earlier:
        path.write_bytes(good)
    state = copy.deepcopy(states[0])
    state.optimizer["state"][2]["momentum_buffer"] = CannotBeWritten()
    with pytest.raises(RuntimeError, match=r"^this cannot be written$"):
        state.save(path)
    assert files(path.parent) == ["checkpoint.pt"] * earlier
    assert not earlier or path.read_bytes() == good


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
def test_another_network_is_refused(other: nn.Module, states: list[Checkpoint]) -> None:
    states[0].check_network(tiny_network(seed=5), Path("checkpoint.pt"))  # the own one is not
    with pytest.raises(CheckpointError) as raised:
        states[0].check_network(other, Path("checkpoint.pt"))
    assert str(raised.value) == "checkpoint.pt holds the weights of another network; build the model of its config.json."


def changed(network: nn.Module) -> nn.Module:
    """The network with another activation, which no weight shows, in a branch that starts as zeros."""
    for block in network.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
    network.layer1[0].bn1.register_forward_hook(lambda module, given, output: output.tanh())
    return network


@pytest.mark.parametrize("is_changed", [True, False], ids=["changed", "as built"])
def test_a_network_changed_after_it_was_built_is_never_taken_for_the_one_of_its_name(is_changed: bool, path: Path) -> None:
    config = plan(model="ResNet18")
    own, other = changed(build_network("ResNet18", 3)), build_network("ResNet18", 3)
    if not is_changed:
        own, other = other, own
    classifier, _ = fit(own, colored_images(24), colored_images(8), config, quiet, lambda state: state.save(path))
    assert classifier.model == (None if is_changed else "ResNet18")
    saved = Checkpoint.load(path)
    saved.check_network(own, path)
    with pytest.raises(CheckpointError, match="was changed after it was built" if is_changed else "this network is none"):
        saved.check_network(other, path)
    if is_changed:
        with pytest.raises(ClassifierError, match="cannot be used: No name makes its network"):
            Classifier.load(path)
    else:
        said = Classifier.load(path, precision="fp32").predict(colored_images(8))
        assert_close(said.logits, classifier.predict(colored_images(8)).logits)
    with pytest.raises(CheckpointError, match="resume= holds"):
        fit(other, colored_images(24), colored_images(8), config, quiet, resume=saved)


@pytest.mark.parametrize("sizes", [(8, 12), (12, 8)])
def test_a_network_that_differs_at_one_size_alone_goes_on_with_its_own_checkpoints(sizes: tuple[int, int], path: Path) -> None:
    def other() -> nn.Module:
        network = build_network("resnet_custom", 3)
        network.register_forward_hook(lambda module, given, output: output if given[0].shape[2] < 12 else output.tanh())
        return network

    names, config = [], plan(model="resnet_custom", epochs=2, resolutions=tuple((px, 0.5) for px in sizes))

    def keep(state: Checkpoint) -> None:
        state.save(path)
        Checkpoint.load(path).check_network(other(), path)
        names.append(Checkpoint.load(path).classifier["model"])

    classifier, _ = fit(other(), colored_images(24), colored_images(8), config, quiet, keep)
    assert {*names, classifier.model} == {None if sizes[1] == 12 else "resnet_custom"}


def test_a_network_that_takes_no_single_image_is_trained_and_has_no_name() -> None:
    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) == 1:
            raise KeyError("a single image")

    torch.manual_seed(0)
    network = build_network("resnet_custom", 3)
    network.get_parameter("linear.bias").data[0] = 10  # a positive value is a logit: no single image is asked what made it
    network.register_forward_pre_hook(look)
    states: list[Checkpoint] = []
    fit(network, colored_images(24), colored_images(8), plan(model="resnet_custom"), quiet, states.append)
    assert [state.classifier["model"] for state in states] == [None]


def test_a_gpu_has_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, drawn, calls = torch.device("cuda", 1), torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: drawn if device == gpu else None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: calls.append((device, state.tolist())))
    state = random_state(gpu)
    assert list(state) == ["cpu", "cuda"]
    assert torch.equal(state["cpu"], torch.get_rng_state())
    restore_random_state(state, CPU)  # taken on a GPU, gone on without one
    restore_random_state({"cpu": state["cpu"]}, gpu)  # and the other way round
    assert calls == []
    restore_random_state(state, gpu)
    assert calls == [(gpu, list(range(16)))]
