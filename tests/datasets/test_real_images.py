"""A short run on real photographs, where they are at hand: it learns, and its mistakes can be explained."""

from pathlib import Path

import numpy as np
import pytest

from era_support_packages import gradcam
from era_support_packages.datasets.loading import load
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.loop import fit
from era_support_packages.training.resolution import resolve
from era_support_packages.training.setup import build_model

FOLDER = Path(__file__).parents[2] / "data" / "cifar10-jpeg"


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="the JPEG copy of CIFAR-10 is not unpacked in data/cifar10-jpeg")
def test_a_short_run_learns_and_its_mistakes_can_be_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parents[1])  # where the decoded images are kept
    train, test = load(FOLDER)
    config = TrainingConfig.preset("smoke", train_images=1600, max_lr=0.03, whitening=True)
    config = resolve(config.replace(device="cpu"), train)
    model = build_model(config, 10, train)
    _, history = fit(model, train, test.take(np.arange(0, 10_000, 10)), config, report=lambda _: None)
    assert history.predictions.accuracy > 22  # chance is 10 %; it reached 32 %, with a standard error of 1.5 % on 1,000 images

    worst = 10 * history.predictions.wrong()[:4]  # every tenth test image was looked at
    peaks = gradcam.explain(model, normalize_images(test, worst)).maps.max(axis=(3, 4))
    assert peaks.shape == (4, 1, 4)
    assert np.all((peaks == 0) | (peaks > 0.999))
    assert np.any(peaks > 0.999)
