"""One map of several layers: "layer3+layer4" is the mean of theirs, each scaled by itself, as pytorch-grad-cam makes it."""

from collections.abc import Sequence

import numpy as np
from pytorch_grad_cam.utils.image import scale_cam_image

FAINT = 1e-9
"""scaled twice by the library, a map of a larger maximum reaches 1 but for 1e-5"""


def combined(raw: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The mean of several layers' maps (N, h, w), each of its own grid, not yet scaled: float32 (N, height, width) in [0, 1].

    Each map is first scaled to [0, 1] by itself, so that no layer outweighs another, and brought to `size`; a constant one
    becomes zeros. A coarse layer says which object, a fine one where its edge is (Jiang et al. 2021, "LayerCAM: Exploring
    Hierarchical Class Activation Maps for Localization", who take the maximum; pytorch-grad-cam takes the mean). They are scaled
    twice, as the library divides by the maximum and 1e-7 more: a layer of tiny values would count for less.

    >>> import numpy as np
    >>> fine, coarse = np.eye(4)[None], np.eye(2)[None]
    >>> combined([fine, coarse], (4, 4)).shape
    (1, 4, 4)
    """
    own = [scale_cam_image(visible(maps)) for maps in raw]
    scaled = np.stack([scale_cam_image(maps, (size[1], size[0])) for maps in own])
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
