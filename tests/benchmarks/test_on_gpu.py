"""The script that waits for a GPU, tried with everything made small: it is stopped in the middle, goes on, and loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "on_gpu.sh"


def environment(work: Path) -> dict[str, str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**outer, "PYTHON": sys.executable, "WORK": str(work)}


def stored(folder: Path) -> list[tuple[str, int]]:
    """Recipe and seed of the rows that were trained here."""
    file = folder / "accuracy.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    return [(row["recipe"], row["seed"]) for row in rows if row["data"] == "digits"]


@pytest.mark.several
def test_everything_runs_is_stopped_in_the_middle_and_goes_on(tmp_path):
    work, folder = tmp_path / "work", tmp_path / "brought back"
    command = ["bash", str(SCRIPT), "--tiny", str(folder)]
    first = subprocess.Popen(command, env=environment(work), stdout=subprocess.DEVNULL)
    while not stored(folder) and first.poll() is None:
        time.sleep(0.2)
    before = stored(folder)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 143
    assert before == [("best, tiny", 0)]
    assert "run it again to go on" in (folder / "log.txt").read_text()

    result = subprocess.run(command, env=environment(work), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    others = ("published, 26 epochs", "fast", "published, 8 epochs", "published, 80 epochs")
    assert stored(folder) == [*before, *((f"{name}, tiny", 0) for name in others), ("fast, tiny", 1)]
    assert {path.name for path in folder.iterdir()} == {
        *("accuracy.json", "log.txt", "step_profile.json"),
        *("notebook.html", "notebook_sections.json", "figures.zip", "tests.xml"),
    }
    profile = json.loads((folder / "step_profile.json").read_text())
    assert sum(row["share %"] for row in profile["rows"]) == pytest.approx(100)
    assert next(row for row in profile["rows"] if row["class"] == "matrix work")["ms a step"] > 0
    sections = json.loads((folder / "notebook_sections.json").read_text())["rows"]
    assert "7. Training" in [row["section"] for row in sections]

    again = subprocess.run(command, env=environment(work), capture_output=True, text=True)  # nothing is done twice
    assert again.returncode == 0
    assert "Run runs/" not in again.stdout
    assert "== notebook" not in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tyni"], "Unknown option --tyni"),
        (["--minutes"], "--minutes needs a value"),
        (["--minutes", "soon"], "--minutes is soon; give a whole number"),
        (["--data", "nowhere"], "Give a folder with --data"),
    ],
)
def test_a_bad_word_is_named_before_any_work(words, said, tmp_path):
    work = tmp_path / "work"
    result = subprocess.run(["bash", str(SCRIPT), *words], env=environment(work), capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert not work.exists()


def test_a_kernel_belongs_to_the_first_class_that_its_name_tells():
    """Names as PyTorch's profiler gives them on GPUs, and those of operations on a CPU."""
    import step_profile

    names = {
        "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": "matrix work",
        "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816wgrad_optimized_bf16_256x128>": "matrix work",
        "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT": "matrix work",
        "aten::mkldnn_convolution": "matrix work",
        "void cudnn::ops::convertTensor_kernel<float, __half, float>": "copies and layouts",
        "void cudnn::ops::nchwToNhwcKernel<float, float>": "copies and layouts",
        "Memcpy DtoD (Device -> Device)": "copies and layouts",
        "void at::native::batch_norm_backward_reduce_channels_last_kernel<4>": "batch norm",
        "void cudnn::bn_fw_tr_1C11_kernel_NCHW<float>": "batch norm",
        "void at::native::multi_tensor_apply_kernel<FusedSgdMathFunctor>": "optimizer",
        "void at::native::vectorized_gather_kernel<16, long>": "gathering",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>": "elementwise",
        "void at::native::reduce_kernel<512, 1>": "pooling and sums",
        "something_new": "other",
    }
    assert {name: step_profile.class_of(name) for name in names} == names
    rows = step_profile.by_class({"a_gemm": (3.0, 2), "b_gemm": (4.0, 1), "Memset": (1.0, 5)})
    assert [(row["class"], row["ms a step"], row["share %"], row["calls"], row["longest"]) for row in rows] == [
        ("matrix work", 7.0, 87.5, 3, "b_gemm"),
        ("copies and layouts", 1.0, 12.5, 5, "Memset"),
    ]


def test_the_seconds_of_a_section_are_those_of_its_cells():
    import notebook_sections

    def cell(content: str | float) -> dict:
        """A text, or code that took so many seconds."""
        if isinstance(content, str):
            return {"cell_type": "markdown", "source": content.splitlines(keepends=True), "metadata": {}}
        return {"cell_type": "code", "source": ["1"], "metadata": {"papermill": {"duration": content}}}

    contents = ["# Title", 0.5, "## 1. First\n\nwords", 1.0, "### aside", 2.0, "## 2.", 4.0]
    found = notebook_sections.sections({"cells": list(map(cell, contents))})
    assert found == {"before the first section": 0.5, "1. First": 3.0, "2.": 4.0}
    with pytest.raises(ValueError, match="a cell has no duration: give the copy that the notebook command executed"):
        notebook_sections.sections({"cells": [{**cell(1.0), "metadata": {}}]})
