"""What several tests of the checks share."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture
def global_state_stays() -> Iterator[None]:
    """Fails a test that leaves a global random state or a gradient mode otherwise than it was."""

    def state() -> tuple[object, ...]:
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), modes

    before = state()
    yield
    assert state() == before
