"""In which forms a trained network leaves, and what each needs: known before PyTorch is imported."""

from dataclasses import dataclass

from era_support_packages.system.extras import is_installed


@dataclass(frozen=True)
class ExportFormat:
    """How the names of its files end, and the packages that write and read it."""

    suffix: str
    packages: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """The end of a sentence on what is not installed here, with what to type; "" where all is there."""
        lacking = [name for name in self.packages if not is_installed(name)]
        return f"needs {' and '.join(lacking)}: type pip install {' '.join(lacking)}." if lacking else ""


FORMATS = {
    "onnx": ExportFormat(".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "torch": ExportFormat(".pt2"),
    "safetensors": ExportFormat(".safetensors", ("safetensors",)),
}
