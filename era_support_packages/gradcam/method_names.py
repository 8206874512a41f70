"""The names of the ten methods, known without the import of `methods`, which takes seconds."""

from typing import Literal, get_args

MethodName = Literal[
    "gradcam",
    "gradcam++",
    "hirescam",
    "xgradcam",
    "layercam",
    "eigengradcam",
    "eigencam",
    "scorecam",
    "ablationcam",
    "fullgrad",
]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
