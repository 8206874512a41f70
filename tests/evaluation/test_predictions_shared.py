"""Several processes predict each image once, to the same bits as one."""

import numpy as np
import pytest
import several_jobs as jobs
from several import in_processes


@pytest.mark.unhurried
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_predictions_are_those_of_one_process_in_file_order(count, flip):
    """30 images make five batches of 7, the last of which is short; two make one, and the others have nothing to do."""
    for images in (30, 2):
        wanted = jobs.alone(jobs.evaluate, images, flip)
        assert len(wanted) == images
        for found in in_processes(count, jobs.evaluate, images, flip):
            np.testing.assert_array_equal(found, wanted)
