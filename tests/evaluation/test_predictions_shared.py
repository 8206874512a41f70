"""Several processes predict each image once, to the same bits as one."""

import numpy as np
import pytest
import several_jobs as jobs
from several import in_processes

PARTS = [(images, flip) for images in (30, 2) for flip in (False, True)]
"""30 images make five batches of 7, the last of which is short; two make one, and the others have nothing to do."""


@pytest.mark.parametrize("count", [2, 3])
def test_predictions_are_those_of_one_process_in_file_order(count):
    wanted = jobs.alone(jobs.evaluate, PARTS)
    assert [len(logits) for logits in wanted] == [30, 30, 2, 2]
    for found in in_processes(count, jobs.evaluate, PARTS):
        for logits, those_of_one in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(logits, those_of_one)
