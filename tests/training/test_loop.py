"""Training: every number of the log against one worked out by hand, on networks of a few channels."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MEAN, STD, asking, colored_images, plan, quiet, tiny_network
from torch import Tensor, nn
from torch.testing import assert_close

from era_support_packages.datasets.batches import shuffled_order
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.predictions import predict
from era_support_packages.training.config import ConfigValues, TrainingConfig
from era_support_packages.training.history import log_header, log_row
from era_support_packages.training.loop import _evenly_spread, fit
from era_support_packages.training.resolution import resolve

pytestmark = pytest.mark.usefixtures("long_enough")
CPU = torch.device("cpu")
TRAIN, TEST = colored_images(24), colored_images(12, split="test", seed=1)


def normalized(dataset: ImageDataset, indices: np.ndarray) -> Tensor:
    """Images (N, 3, H, W) as the network should see them, worked out in numpy."""
    scaled = (dataset.images[indices] / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def test_it_returns_the_network_with_all_that_its_predictions_depend_on() -> None:
    model, config = tiny_network(), plan(epochs=2, resolutions=((8, 0.5), (12, 0.5)), batch_size=12)
    classifier, history = fit(model, TRAIN, TEST, config, quiet)
    assert classifier.network is model
    assert (classifier.classes, classifier.mean, classifier.std) == (TEST.classes, TEST.mean, TEST.std)
    assert (classifier.resolution, classifier.precision, classifier.model) == (12, "fp32", None)  # no name makes it
    assert np.array_equal(classifier.predict(TEST).logits, history.predictions.logits)


@pytest.mark.parametrize("preset", ["original", "fast", "best", "cpu"])
def test_the_whole_plan_of_each_preset_runs(preset: str) -> None:
    train, test = colored_images(60), colored_images(30, split="test", seed=1)
    config = resolve(TrainingConfig.preset(preset, device="cpu", batch_size=20, max_lr=0.1, cutout=2), train)
    _, history = fit(tiny_network(), train, test, config, quiet)
    assert [record.resolution for record in history.records] == [epoch.resolution for epoch in config.planned_epochs(60)]
    assert history.records[-1].test_accuracy == 100


@pytest.mark.parametrize("config", [asking(), plan(max_lr="auto")], ids=["asked for", "without a rate"])
def test_fit_refuses_what_is_not_resolved_before_anything_happens(config: ConfigValues) -> None:
    model, reported = tiny_network(), []
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TypeError, match=r"A ResolvedConfig is needed.*training\.resolve\(config, train\)"):
        fit(model, TRAIN, TEST, config, reported.append)
    assert reported == []
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_numbers_of_a_one_step_run_by_hand() -> None:
    train, test = colored_images(8), colored_images(20, split="test", seed=1)
    model = tiny_network()
    twin = copy.deepcopy(model)
    config = plan(label_smoothing=0.2, weight_decay=0.05, momentum=0.8, max_lr=5.0, test_images=4)
    record = fit(model, train, test, config, quiet).history.records[0]

    logits = twin(normalized(train, np.arange(8)))
    log_probabilities = logits - logits.exp().sum(dim=1, keepdim=True).log()
    # 0.8 of the target is the label, 0.2 are spread over all classes
    loss = -(0.8 * log_probabilities[torch.arange(8), train.labels] + 0.2 * log_probabilities.mean(dim=1)).mean()
    loss.backward()
    assert record.train_loss == pytest.approx(loss.item(), rel=1e-5)
    assert record.train_accuracy == 12.5 * int((logits.argmax(dim=1).numpy() == train.labels).sum())
    assert record.lr == pytest.approx(5.0 / 25)
    # SGD with Nesterov momentum, from rest: the buffer is the gradient, and the step is gradient + momentum * buffer
    for name, parameter in twin.named_parameters():
        decay = 0.05 if parameter.ndim > 1 else 0.0
        expected = parameter.detach() - 0.2 * (1 + 0.8) * (parameter.grad + decay * parameter.detach())
        assert_close(model.get_parameter(name).detach(), expected, rtol=1e-4, atol=1e-6)

    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(normalized(test, np.arange(20)))
    assert record.test_loss == pytest.approx(F.cross_entropy(logits, torch.from_numpy(test.labels)).item(), rel=1e-4)
    assert record.test_correct == int((logits.argmax(dim=1).numpy() == test.labels).sum())
    assert record.test_accuracy == 5 * record.test_correct
    assert (record.epoch, record.resolution, record.images, record.test_total) == (1, 8, 8, 20)
    assert record.seconds > 0


def test_training_numbers_are_means_over_the_images_of_all_full_batches() -> None:
    train, model = colored_images(20), tiny_network(seed=3)
    twin = copy.deepcopy(model)
    _, history = fit(model, train, train, plan(max_lr=1e-12, weight_decay=0.0, seed=4), quiet)  # the weights stand still
    order = shuffled_order(20, 4, 0)
    losses, hits = [], 0
    for batch in (order[:8], order[8:16]):  # four of the twenty are left over
        labels, logits = torch.from_numpy(train.labels[batch]), twin(normalized(train, batch))
        losses.append(F.cross_entropy(logits, labels).item())
        hits += int((logits.argmax(dim=1) == labels).sum())
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert history.records[0].train_loss == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert history.records[0].train_accuracy == pytest.approx(100 * hits / 16)


def test_rows_follow_the_plan_and_test_numbers_equal_predictions() -> None:
    train, test = colored_images(24, size=16), colored_images(21, size=16, split="test", seed=1)
    config = plan(train_images=60, resolutions=((8, 0.4), (16, 0.6)), batch_size=6, test_images=5)
    model, models = tiny_network(), []
    _, history = fit(model, train, test, config, quiet, lambda state: models.append(copy.deepcopy(model)))

    rows = [(record.epoch, record.resolution, record.images) for record in history.records]
    assert rows == [(1, 8, 24), (2, 16, 24), (3, 16, 12)]
    assert rows == [(epoch.epoch, epoch.resolution, epoch.images) for epoch in config.planned_epochs(24)]

    spread = test.take([0, 5, 10, 15, 20])
    for record, snapshot, images in zip(history.records, models, [spread, spread, test], strict=True):
        expected = predict(snapshot, images, CPU, "fp32", record.resolution)
        labels = torch.from_numpy(images.labels)
        assert record.test_correct == int((expected.logits.argmax(axis=1) == images.labels).sum())
        assert record.test_total == len(images)
        assert record.test_accuracy == pytest.approx(100 * record.test_correct / len(images))
        assert record.test_loss == pytest.approx(F.cross_entropy(torch.from_numpy(expected.logits), labels).item(), rel=1e-5)
    np.testing.assert_allclose(history.predictions.logits, expected.logits, rtol=1e-5, atol=1e-6)
    assert history.predictions.labels is test.labels
    assert history.predictions.classes == ("red", "green", "blue")


@pytest.mark.parametrize(("epochs", "rates"), [(2, [0.1, 4e-7]), (3, [0.1, 0.05 + 2e-7, 4e-7])])
def test_scheduler_is_stepped_every_batch_over_the_whole_run(epochs: int, rates: list[float]) -> None:
    train = colored_images(26)  # three batches an epoch; the peak at the last step of epoch 1
    _, history = fit(tiny_network(), train, train, plan(epochs=epochs, warmup=1 / epochs), quiet)
    assert [record.lr for record in history.records] == pytest.approx(rates)


def test_fit_computes_with_the_threads_and_algorithms_of_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def in_use() -> tuple[int, bool]:
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    model, noted, threads = tiny_network(), [], torch.get_num_threads()
    model.register_forward_pre_hook(lambda *_: noted.append(in_use()))
    other = 2 if threads == 1 else 1
    fit(model, colored_images(8), colored_images(3), plan(threads=other, deterministic=True), quiet)
    assert noted == [(other, True)] * 7  # two passes that ask for logits, three timed steps, a step, a batch of the test split
    assert in_use() == (threads, False)


def test_model_is_in_training_mode_while_it_trains_and_holds_the_last_weights() -> None:
    model, flags = tiny_network().eval(), []
    model.register_forward_pre_hook(lambda network, _: flags.append(network.norm.training))
    _, history = fit(model, colored_images(16), TEST, plan(epochs=2), quiet)
    assert flags[5:] == [True, True, False, True, True, False]  # two passes that ask for logits and three timed steps before
    assert all(module.training for module in model.modules())
    np.testing.assert_allclose(history.predictions.logits, predict(model, TEST, CPU).logits, rtol=1e-5, atol=1e-6)
    assert model.norm.num_batches_tracked == 4  # the timed steps went to a copy


def test_bf16_is_close_to_fp32_and_keeps_the_weights_in_fp32() -> None:
    (_, exact), (classifier, rounded) = (
        fit(tiny_network(), TRAIN, TEST, plan(epochs=2, max_lr=0.05, precision=precision), quiet)
        for precision in ("fp32", "bf16")
    )
    assert all(parameter.dtype == torch.float32 for parameter in classifier.network.parameters())
    assert rounded.predictions.logits.dtype == np.float32
    one, other = ([(row.train_loss, row.test_loss) for row in history.records] for history in (exact, rounded))
    # bf16 has 8 significant bits: each product is off by up to 2**-9 = 0.2 %, a loss by no more than 1 %
    np.testing.assert_allclose(other, one, rtol=0.01)
    assert not np.equal(other, one).any()


def test_evenly_spread_images_keep_the_share_of_each_class() -> None:
    ordered = dataclasses.replace(colored_images(30), labels=np.repeat(np.arange(3), 10))
    assert _evenly_spread(ordered, 6).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert all(_evenly_spread(ordered, count) is ordered for count in (None, 30, 31))


@pytest.mark.usefixtures("instant")
def test_announcement_header_and_rows_are_reported_in_order_each_row_after_its_state_is_kept() -> None:
    events: list[Any] = []
    config = plan(epochs=2, test_images=6, max_lr=0.3)
    _, history = fit(tiny_network(), TRAIN, TEST, config, events.append, lambda state: events.append(len(state.records)))
    first, second = map(log_row, history.records)
    announced = "This run will take about 1 min 48 s on this machine."  # 2 * (24 + 6 / 3 + 24 + 12 / 3)
    assert events == [announced, log_header(), 1, first, 2, second]


def hopeless() -> nn.Module:
    """A network that names the first class, whatever it has learnt."""
    network = tiny_network()
    network.register_forward_hook(lambda module, inputs, logits: 0 * logits)
    return network


WARNING = (
    "Warning: after the warm-up the training accuracy is {} %, no better than always naming the largest class ({} %); "
    "a lower max_lr may help."
)


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(
    ("warmup", "after_row"),  # the first epoch that begins after the warm-up, else the last one
    [(0, 1), (0.25, 2), (1 / 3, 2), (0.34, 3), (0.9, 3), (1, 3)],
)
def test_a_network_no_better_than_the_largest_class_after_the_warmup_is_warned_of_once(warmup: float, after_row: int) -> None:
    reported: list[str] = []
    _, history = fit(hopeless(), TRAIN, TRAIN, plan(epochs=3, warmup=warmup), reported.append)
    rows = [log_row(record) for record in history.records]
    assert reported[1:] == [log_header(), *rows[:after_row], WARNING.format("33.33", "33.33"), *rows[after_row:]]
    assert history.complete


@pytest.mark.usefixtures("instant")
def test_the_warning_names_the_share_of_the_largest_class_of_an_unbalanced_set() -> None:
    reported: list[str] = []
    train = dataclasses.replace(colored_images(8), labels=np.array([1, 0, 1, 1, 2, 1, 0, 1]))
    fit(hopeless(), train, train, plan(), reported.append)
    assert reported[-1] == WARNING.format("25.00", "62.50")


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(("done", "warned"), [(1, True), (2, False)])
def test_a_run_resumed_after_it_was_warned_of_is_not_warned_of_again(done: int, warned: bool) -> None:
    config, states, reported = plan(epochs=3, warmup=0.25), [], []
    fit(hopeless(), TRAIN, TRAIN, config, quiet, lambda state: states.append(copy.deepcopy(state)))
    fit(hopeless(), TRAIN, TRAIN, config, reported.append, resume=states[done - 1])
    assert reported.count(WARNING.format("33.33", "33.33")) == warned
    assert len(reported) == 2 + (3 - done) + warned


def test_fit_prints_nothing_but_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    reported: list[str] = []
    config = plan(epochs=2, max_lr=0.3)
    fit(tiny_network(), TRAIN, TRAIN, config, reported.append)
    assert capsys.readouterr().out == ""
    fit(tiny_network(), TRAIN, TRAIN, config)
    for lines in (reported, capsys.readouterr().out.splitlines()):
        assert [len(line) for line in lines][1:] == [len(log_header())] * 3
