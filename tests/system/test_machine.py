"""Device, precision, autocast, allocator, and the report: on machines that are made up where this one will not do."""

import ctypes
import importlib.metadata
import io
import os
import platform
import re
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny import plan
from torch import nn

from era_support_packages.system import machine
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.resources import use_resources

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int = 0, mps: bool = False, capability: tuple[int, int] = (7, 5)) -> None:
    """Pretend to be a machine with these GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


# ---- device ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpus", "mps", "expected"), [(2, True, CUDA), (0, True, MPS), (0, False, CPU)])
def test_auto_takes_the_best_device(gpus: int, mps: bool, expected: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus, mps)
    assert machine.resolve_device() == expected
    assert machine.resolve_device("auto") == expected
    assert machine.resolve_device("cpu") == CPU


def test_a_device_that_is_there_is_taken_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=2, mps=True)
    assert machine.resolve_device("cuda") == torch.device("cuda")
    assert machine.resolve_device("cuda:1") == torch.device("cuda", 1)
    assert machine.resolve_device("mps") == MPS


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there_is_refused(device: str, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus)
    with pytest.raises(ValueError, match=r"^device is ") as error:
        machine.resolve_device(device)
    assert str(error.value) == f"device is {device!r}, but this machine has {gpus} CUDA GPUs; use 'auto' or 'cpu'."


def test_apples_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(ValueError, match=r"^device is 'mps', but PyTorch finds no Apple GPU here; use 'auto' or 'cpu'\.$"):
        machine.resolve_device("mps")


# ---- precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("faster", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_cpu_is_what_measures_faster(faster: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_bf16_is_faster", lambda: faster)
    assert machine.resolve_precision("auto", CPU) == expected
    assert machine.resolve_precision("auto", MPS) == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((6, 1), "fp16")])
def test_auto_on_a_gpu_follows_its_generation(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, gpus=1, capability=capability)
    assert machine.resolve_precision("auto", CUDA) == expected


def test_a_precision_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_bf16_is_faster", lambda: pytest.fail("nothing is to be measured"))
    for precision in ("fp32", "bf16"):
        assert machine.resolve_precision(precision, CPU) == precision
        assert machine.resolve_precision(precision, CUDA) == precision
    assert machine.resolve_precision("fp16", CUDA) == "fp16"


@pytest.mark.parametrize("device", [CPU, MPS])
def test_fp16_needs_a_cuda_gpu(device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"^precision is 'fp16' on ") as error:
        machine.resolve_precision("fp16", device)
    assert str(error.value) == (f"precision is 'fp16' on {device.type}; it needs a CUDA GPU: use 'auto', 'fp32' or 'bf16'.")


def test_without_bf16_instructions_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(machine, "time", None)
    assert machine._bf16_is_faster() is False


@pytest.mark.parametrize(("fp32_seconds", "bf16_seconds", "faster"), [(1.3, 1.0, True), (1.1, 1.0, False), (1.0, 2.0, False)])
def test_bf16_must_be_a_fifth_faster(
    fp32_seconds: float, bf16_seconds: float, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ran = [0.0], []

    class Layer(nn.Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ran.append(x.dtype)
            seconds = bf16_seconds if x.dtype == torch.bfloat16 else fp32_seconds
            clock[0] += seconds if ran.count(x.dtype) > 1 else 0.1  # the first call must not count
            return x

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(machine, "nn", SimpleNamespace(Conv2d=lambda *sizes, **options: Layer()))
    assert machine._bf16_is_faster() is faster
    assert set(ran) == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_gives_the_dtype_of_the_forward_pass(precision: str, dtype: torch.dtype) -> None:
    layer, inputs = nn.Linear(4, 4), torch.ones(2, 4)
    with machine.autocast(CPU, precision):
        assert layer(inputs).dtype == dtype
    assert layer(inputs).dtype == torch.float32
    assert isinstance(machine.autocast(CPU, "fp32"), nullcontext)


# ---- what a run computes with ------------------------------------------------------------------------------------------

Settings = tuple[int, bool, bool, bool]


def settings() -> Settings:
    """Threads; whether cuDNN tries its algorithms; whether only deterministic ones are used; whether others only warn."""
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return (
        torch.get_num_threads(),
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        warn_only,
    )


def set_settings(values: Settings) -> None:
    threads, torch.backends.cudnn.benchmark, deterministic, warn_only = values
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@pytest.fixture
def own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test may change them, and the environment variable that belongs to them, which is not set at first."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = settings()
    yield
    set_settings(before)


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize(
    ("config", "inside"),
    [
        (plan(threads=1), (1, False, False, False)),
        (plan(threads=3), (3, False, False, False)),
        (plan(threads=2, deterministic=True), (2, False, True, False)),
        (plan(threads=2, device="mps"), (2, False, False, False)),
        (plan(threads=1, device="cuda:0"), (1, True, False, False)),
        (plan(threads=1, device="cuda"), (1, True, False, False)),
        (plan(threads=1, device="cuda:0", deterministic=True), (1, False, True, False)),
    ],
)
def test_threads_and_algorithms_are_those_of_the_configuration_while_it_lasts(config: TrainingConfig, inside: Settings) -> None:
    before = (2, False, False, False)
    set_settings(before)
    with use_resources(config):
        assert settings() == inside
    assert settings() == before

    def interrupted() -> None:
        with use_resources(config):
            assert settings() == inside
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert settings() == before


@pytest.mark.usefixtures("own_settings")
def test_what_was_set_before_is_restored_whatever_it_was() -> None:
    before = (3, True, True, True)
    set_settings(before)
    with use_resources(plan(threads=1, deterministic=True)):
        assert settings() == (1, False, True, False)  # an algorithm that is not deterministic raises
    assert settings() == before
    with use_resources(plan(threads=1)):
        assert settings() == (1, False, True, True)
    assert settings() == before


@pytest.mark.usefixtures("own_settings")
def test_threads_that_are_right_already_and_algorithms_that_do_not_matter_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda number: pytest.fail("to set them is not free"))
        with use_resources(plan(threads=threads, deterministic=True)):
            assert torch.get_num_threads() == threads
        patch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: pytest.fail("nor is this"))
        with use_resources(plan(threads=threads)):
            assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("own_settings")
def test_deterministic_tells_cublas_unless_a_person_did(monkeypatch: pytest.MonkeyPatch) -> None:
    with use_resources(plan(threads=1)):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with use_resources(plan(threads=1, deterministic=True)):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with use_resources(plan(threads=1, deterministic=True)):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


# ---- allocator ---------------------------------------------------------------------------------------------------------


def test_freed_memory_is_kept_on_this_machine() -> None:
    expected = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
    assert machine.keep_freed_memory() is expected
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"


@pytest.mark.parametrize(("answer", "expected"), [(1, True), (0, False)])
def test_glibc_is_told_to_keep_freed_blocks(answer: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[int, int] = {}

    def mallopt(parameter: int, value: int) -> int:
        calls[parameter] = value
        return answer

    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert machine.keep_freed_memory() is expected
    assert calls == {-4: 0, -1: 2**31 - 1, -2: 2**28}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def test_elsewhere_the_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())  # a C library without mallopt
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert machine.keep_freed_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("only Linux has glibc"))
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.keep_freed_memory() is False
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"  # what a person set stays


# ---- words -------------------------------------------------------------------------------------------------------------


def test_devices_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Tesla T4 number {device.index}")
    assert machine.describe(CUDA) == "Tesla T4 number 0"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert machine.describe(MPS) == "Apple GPU (arm64)"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(machine, "_processor_name", lambda: "AMD EPYC")
    assert machine.describe(CPU) == "CPU (AMD EPYC, 3 threads)"


def test_the_name_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R): CPU @ 2.20GHz\nmodel name\t: another\n"
    monkeypatch.setattr(machine, "open", lambda path: io.StringIO(text), raising=False)
    assert machine._processor_name() == "Intel(R) Xeon(R): CPU @ 2.20GHz"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(machine, "open", lambda path: io.StringIO("processor\t: 0\n"))
    assert machine._processor_name() == "aarch64"

    def no_file(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(machine, "open", no_file)
    monkeypatch.setattr(platform, "processor", lambda: "i386")
    assert machine._processor_name() == "i386"


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.versions()
    assert list(found) == ["python", "torch", "torchvision", "albumentations", "numpy", "grad-cam"]
    assert (found["python"], found["torch"]) == (platform.python_version(), importlib.metadata.version("torch"))

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert set(list(machine.versions().values())[1:]) == {"not installed"}


def test_the_overview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "versions", lambda: {"python": "3.12.1", "torch": "2.6.0"})
    monkeypatch.setattr(machine, "_processor_name", lambda: "AMD EPYC")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert machine.overview(CPU) == "device    CPU (AMD EPYC, 2 threads)\nversions  python 3.12.1, torch 2.6.0"
    pretend(monkeypatch, gpus=1, capability=(7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=15.75 * 2**30))
    assert machine.overview(CUDA) == (
        "device    Tesla T4\nmemory    15.8 GiB, compute capability 7.5\nversions  python 3.12.1, torch 2.6.0"
    )


def test_the_report_of_this_machine() -> None:
    lines = machine.overview(CPU).splitlines()
    assert re.fullmatch(r"device    CPU \(.+, \d+ threads\)", lines[0])
    assert lines[1].startswith(f"versions  python {platform.python_version()}, torch 2.")


def test_many_versions_break_between_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {f"some-package-{number}": "1.2.3" for number in range(9)}
    monkeypatch.setattr(machine, "versions", lambda: numbers)
    lines = machine.overview(CPU).splitlines()[1:]
    assert all(len(line) <= 100 for line in lines)
    assert re.findall(r"(some-package-\d) (1\.2\.3)(?:,|$)", "\n".join(lines)) == list(numbers.items())
