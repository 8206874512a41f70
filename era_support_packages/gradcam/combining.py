"""One map of several layers: "layer3+layer4" is the mean of theirs, each scaled by itself, as pytorch-grad-cam makes it."""

from collections.abc import Sequence

import numpy as np
from pytorch_grad_cam.utils.image import scale_cam_image

from era_support_packages.gradcam.cells import Cells, scaled_and_drawn

FAINT = 1e-9
"""scaled twice by the library, a map of a larger maximum reaches 1 but for 1e-5"""


def one_map(
    layers: Sequence[tuple[np.ndarray, Cells | None]], size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int], Cells | None]:
    """Maps (N, T, h, w) after their ReLU, how finely they mark a place, and where their cells lie.

    Of one layer its own; of several, each with its cells, their mean, at the resolution of the image, `size`.

    >>> import numpy as np
    >>> from era_support_packages.gradcam.combining import one_map
    >>> maps, grid, _ = one_map([(np.ones((1, 1, 4, 4)), None), (np.ones((1, 1, 2, 2)), None)], (32, 32))
    >>> maps.shape, grid
    ((1, 1, 32, 32), (4, 4))
    """
    maps = [np.maximum(np.nan_to_num(raw), 0) for raw, _ in layers]
    height, width = (max(raw.shape[axis] for raw in maps) for axis in (2, 3))
    if len(layers) == 1:
        return maps[0], (height, width), layers[0][1]
    mean = combined([raw.reshape(-1, *raw.shape[2:]) for raw in maps], size, [cells for _, cells in layers])
    return mean.reshape(*maps[0].shape[:2], *size), (height, width), None


def combined(raw: Sequence[np.ndarray], size: tuple[int, int], cells: Sequence[Cells | None] | None = None) -> np.ndarray:
    """The mean of several layers' maps (N, h, w), each of its own grid, not yet scaled: float32 (N, height, width) in [0, 1].

    Each map is first scaled to [0, 1] by itself, so that no layer outweighs another, and brought to `size`, stretched over it or
    where its `cells` lie; a constant one becomes zeros. A coarse layer says which object, a fine one where its edge is (Jiang et
    al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", who take the maximum; pytorch-grad-cam
    takes the mean). They are scaled twice, as the library divides by the maximum and 1e-7 more: a layer of tiny values would
    count for less.

    >>> import numpy as np
    >>> fine, coarse = np.eye(4)[None], np.eye(2)[None]
    >>> combined([fine, coarse], (4, 4)).shape
    (1, 4, 4)
    """
    own = [scale_cam_image(visible(maps)) for maps in raw]
    lying = cells or [None] * len(own)
    scaled = np.stack([scaled_and_drawn(maps, size, where) for maps, where in zip(own, lying, strict=True)])
    return scaled.mean(axis=0, dtype=np.float32)


def visible(raw: np.ndarray) -> np.ndarray:
    """Maps (N, h, w) as float32, of which those of hardly any range are brought to [0, 1].

    As the library adds 1e-7 to the maximum, they would stay dark though they have a pattern, as that of a sure network's
    log-probability.

    >>> import numpy as np
    >>> from era_support_packages.gradcam.combining import visible
    >>> visible(np.array([[[0, 1e-20]], [[0, 2]]])).tolist()
    [[[0.0, 1.0]], [[0.0, 2.0]]]
    """
    raw = np.asarray(raw, np.float32)
    lowest = raw.min(axis=(1, 2), keepdims=True)
    extent = raw.max(axis=(1, 2), keepdims=True) - lowest
    faint = (extent > 0) & (extent < FAINT)
    return np.where(faint, (raw - lowest) / np.where(faint, extent, 1), raw)
