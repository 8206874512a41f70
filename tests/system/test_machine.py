"""Device, precision, autocast, allocator, and the report: on machines that are made up where this one will not do."""

import ctypes
import importlib.metadata
import io
import os
import platform
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny import plan
from torch import nn

from era_support_packages.system import machine
from era_support_packages.training.resources import use_resources

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


@pytest.fixture
def pretend(monkeypatch):
    """Pretend to be a machine with these GPUs."""

    def machine_with(gpus: int = 0, mps: bool = False, capability: tuple[int, int] = (7, 5)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine_with


# ---- device and precision ----------------------------------------------------------------------------------------------


def test_auto_takes_the_best_device_and_one_that_is_there_is_taken_as_asked(pretend):
    for gpus, mps, best in ((2, True, CUDA), (0, True, MPS), (0, False, CPU)):
        pretend(gpus, mps)
        assert [machine.resolve_device(), machine.resolve_device("auto"), machine.resolve_device("cpu")] == [best, best, CPU]
    pretend(gpus=2, mps=True)
    for asked in ("cuda", "cuda:1", "mps"):
        assert machine.resolve_device(asked) == torch.device(asked)


def test_a_device_that_is_not_there_is_refused(pretend):
    for device, gpus in (("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), ("mps", 2)):
        pretend(gpus)
        problem = "PyTorch finds no Apple GPU here" if device == "mps" else f"this machine has {gpus} CUDA GPUs"
        with pytest.raises(ValueError, match=rf"^device is '{device}', but {problem}; use 'auto' or 'cpu'\.$"):
            machine.resolve_device(device)


def test_auto_precision_follows_a_gpus_generation_and_is_what_measures_faster_on_a_cpu(pretend, monkeypatch):
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((6, 1), "fp16")):
        pretend(gpus=1, capability=capability)
        assert machine.resolve_precision("auto", CUDA) == expected
    for faster, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(machine, "_bf16_is_faster", lambda faster=faster: faster)
        assert machine.resolve_precision("auto", CPU) == expected
        assert machine.resolve_precision("auto", MPS) == "fp32"


def test_a_precision_that_is_given_stays_and_fp16_needs_a_cuda_gpu(monkeypatch):
    monkeypatch.setattr(machine, "_bf16_is_faster", lambda: pytest.fail("nothing is to be measured"))
    for precision, device in (("fp32", CPU), ("bf16", CPU), ("fp32", CUDA), ("bf16", CUDA), ("fp16", CUDA)):
        assert machine.resolve_precision(precision, device) == precision
    for device in (CPU, MPS):
        message = rf"^precision is 'fp16' on {device}; it needs a CUDA GPU: use 'auto', 'fp32' or 'bf16'\.$"
        with pytest.raises(ValueError, match=message):
            machine.resolve_precision("fp16", device)


@pytest.mark.parametrize(
    ("supported", "fp32_seconds", "bf16_seconds", "faster"),
    [(True, 1.3, 1.0, True), (True, 1.1, 1.0, False), (True, 1.0, 2.0, False), (False, 2.0, 1.0, False)],
)
def test_bf16_must_be_a_fifth_faster(supported, fp32_seconds, bf16_seconds, faster, monkeypatch):
    clock, ran = [0.0], []

    class Layer(nn.Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ran.append(x.dtype)
            seconds = bf16_seconds if x.dtype == torch.bfloat16 else fp32_seconds
            clock[0] += seconds if ran.count(x.dtype) > 1 else 0.1  # the first call must not count
            return x

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(machine, "nn", SimpleNamespace(Conv2d=lambda *sizes, **options: Layer()))
    assert machine._bf16_is_faster.__wrapped__() is faster
    assert set(ran) == ({torch.float32, torch.bfloat16} if supported else set())


def test_autocast_gives_the_dtype_of_the_forward_pass():
    layer, inputs = nn.Linear(4, 4), torch.ones(2, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with machine.autocast(CPU, precision):
            assert layer(inputs).dtype == dtype
        assert layer(inputs).dtype == torch.float32
    assert isinstance(machine.autocast(CPU, "fp32"), nullcontext)


# ---- what a run computes with ------------------------------------------------------------------------------------------

Settings = tuple[int, bool, bool, bool]


def settings() -> Settings:
    """Threads; whether cuDNN tries its algorithms; whether only deterministic ones are used; whether others only warn."""
    only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return (torch.get_num_threads(), torch.backends.cudnn.benchmark, *only)


def set_settings(values: Settings) -> None:
    threads, torch.backends.cudnn.benchmark, deterministic, warn_only = values
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@pytest.fixture
def own_settings(monkeypatch):
    """The test may change them, and the environment variable that belongs to them, which is not set at first."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = settings()
    yield
    set_settings(before)


PLAIN, STRICT = (2, False, False, False), (3, True, True, True)


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize(
    ("config", "before", "inside"),
    [
        (plan(threads=1), PLAIN, (1, False, False, False)),
        (plan(threads=3), PLAIN, (3, False, False, False)),
        (plan(threads=2, deterministic=True), PLAIN, (2, False, True, False)),
        (plan(threads=2, device="mps"), PLAIN, (2, False, False, False)),
        (plan(threads=1, device="cuda:0"), (2, True, False, False), (1, False, False, False)),
        (plan(threads=1, device="cuda"), PLAIN, (1, False, False, False)),
        (plan(threads=1, device="cuda:0", deterministic=True), PLAIN, (1, False, True, False)),
        (plan(threads=1, deterministic=True), STRICT, (1, False, True, False)),  # one that is not deterministic raises
        (plan(threads=1), STRICT, (1, False, True, True)),
    ],
)
def test_threads_and_algorithms_are_those_of_the_configuration_while_it_lasts(config, before, inside):
    for error in (None, KeyboardInterrupt):
        set_settings(before)
        with nullcontext() if error is None else pytest.raises(error), use_resources(config):
            assert settings() == inside
            if error is not None:
                raise error
        assert settings() == before


@pytest.mark.usefixtures("own_settings")
def test_threads_that_are_right_already_and_algorithms_that_do_not_matter_are_not_set(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", lambda number: pytest.fail("to set them is not free"))
    with use_resources(plan(threads=threads, deterministic=True)):
        assert torch.get_num_threads() == threads
    with monkeypatch.context() as patch:
        patch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: pytest.fail("nor is this"))
        with use_resources(plan(threads=threads)):
            assert torch.get_num_threads() == threads
    monkeypatch.undo()  # `own_settings` sets them back


@pytest.mark.usefixtures("own_settings")
def test_deterministic_tells_cublas_unless_a_person_did(monkeypatch):
    with use_resources(plan(threads=1)):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with use_resources(plan(threads=1, deterministic=True)):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with use_resources(plan(threads=1, deterministic=True)):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


# ---- allocator ---------------------------------------------------------------------------------------------------------


def test_freed_memory_is_kept_on_this_machine(monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert machine.keep_freed_memory() is (platform.system() == "Linux" and platform.libc_ver()[0] == "glibc")
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"


@pytest.mark.parametrize(
    ("system", "answer", "kept"), [("linux", 1, True), ("linux", 0, False), ("linux", None, False), ("darwin", 1, False)]
)
def test_glibc_is_told_to_keep_freed_blocks_and_elsewhere_the_allocator_is_left_alone(system, answer, kept, monkeypatch):
    calls: dict[int, int] = {}
    library = SimpleNamespace()
    if answer is not None:  # else a C library without mallopt
        library.mallopt = lambda parameter, value: calls.update({parameter: value}) or answer
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert machine.keep_freed_memory() is kept
    told = {-4: 0, -1: 2**31 - 1, -2: 2**28}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
    assert calls == (told if system == "linux" and answer is not None else {})
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"  # what a person set stays


# ---- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpuinfo", "processor", "name"),
    [
        ("processor\t: 0\nmodel name\t: Xeon(R): CPU @ 2.20GHz\nmodel name\t: another\n", "x86_64", "Xeon(R): CPU @ 2.20GHz"),
        ("processor\t: 0\n", "", "aarch64"),
        (None, "i386", "i386"),
    ],
)
def test_the_name_of_the_processor(cpuinfo, processor, name, monkeypatch):
    def opened(path: str) -> io.StringIO:
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return io.StringIO(cpuinfo)

    monkeypatch.setattr(machine, "open", opened, raising=False)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert machine._processor_name() == name


def test_versions(monkeypatch):
    found = machine.versions()
    assert list(found) == ["python", "torch", "torchvision", "albumentations", "numpy", "grad-cam"]
    assert (found["python"], found["torch"]) == (platform.python_version(), importlib.metadata.version("torch"))

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert set(list(machine.versions().values())[1:]) == {"not installed"}


def test_the_overview(pretend, monkeypatch):
    lines = machine.overview(CPU).splitlines()  # of this machine
    assert re.fullmatch(r"device    CPU \(.+, \d+ threads\)", lines[0])
    assert lines[1].startswith(f"versions  python {platform.python_version()}, torch 2.")
    monkeypatch.setattr(machine, "versions", lambda: {"python": "3.12.1", "torch": "2.6.0"})
    monkeypatch.setattr(machine, "_processor_name", lambda: "AMD EPYC")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert machine.overview(CPU) == "device    CPU (AMD EPYC, 3 threads)\nversions  python 3.12.1, torch 2.6.0"
    pretend(gpus=1, capability=(7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Tesla T{4 + device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=15.75 * 2**30))
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert machine.overview(MPS).startswith("device    Apple GPU (arm64)\nversions")
    memory = "memory    15.8 GiB, compute capability 7.5"
    assert machine.overview(CUDA) == f"device    Tesla T4\n{memory}\nversions  python 3.12.1, torch 2.6.0"


def test_many_versions_break_between_packages(monkeypatch):
    numbers = {f"some-package-{number}": "1.2.3" for number in range(9)}
    monkeypatch.setattr(machine, "versions", lambda: numbers)
    lines = machine.overview(CPU).splitlines()[1:]
    assert all(len(line) <= 100 for line in lines)
    assert re.findall(r"(some-package-\d) (1\.2\.3)(?:,|$)", "\n".join(lines)) == list(numbers.items())
