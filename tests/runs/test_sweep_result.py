"""What a sweep says of its choice: whether the lead may be chance, and values as they can be typed."""

import math

import pytest
from scipy.stats import ttest_rel

from era_support_packages.notebook.parameters import as_typed
from era_support_packages.runs.sweep_result import Combination, SweepResult, TrialRun
from era_support_packages.runs.trials import Task


def result(*accuracies):
    """One combination for each tuple of accuracies, one for each seed."""
    tried = []
    for value, found in enumerate(accuracies):
        runs = (TrialRun(f"r{value}-{seed}", seed, 1.0, accuracy, 1.0) for seed, accuracy in enumerate(found))
        tried.append(Combination({"cutout": value}, tuple(runs)))
    return SweepResult("sweep", None, 0.1, tuple(range(len(accuracies[0]))), tuple(tried))


@pytest.mark.parametrize(
    ("best", "second", "ends", "said"),
    [
        # differences 1 and 3: mean 2, standard error 1, quantile of t with one degree of freedom 12.7062
        ((81, 93), (80, 90), (2 - 12.7062, 2 + 12.7062), "2.00 points behind, with a 95 % interval of -10.71 to +14.71"),
        # differences 1, 2 and 3, mean 2, standard error 1 / sqrt(3), quantile 4.30265: less than the seeds differ, and chance
        ((81, 92, 73), (80, 90, 70), (-0.484138, 4.484138), "-0.48 to +4.48 over the seeds: it may be chance."),
        # differences 2, 2, 2.5 and 1.5: mean 2, standard error 0.2041, quantile 3.18245
        ((82, 92, 72.5, 61.5), (80, 90, 70, 60), (1.350385, 2.649615), "+1.35 to +2.65 over the seeds: more than chance."),
    ],
)
def test_the_lead_has_the_interval_of_the_differences_seed_by_seed(best, second, ends, said):
    found = result(second, best)
    lead = found.lead
    assert (lead.estimate, lead.low, lead.high) == pytest.approx((2, *ends), abs=1e-4)
    by_scipy = ttest_rel(best, second).confidence_interval(0.95)
    assert (lead.low, lead.high) == pytest.approx((by_scipy.low, by_scipy.high))
    assert said in found.reading()
    assert found.to_dict()["lead"] == {"next": {"cutout": 0}, "points": lead.estimate, "low": lead.low, "high": lead.high}


@pytest.mark.parametrize(
    ("best", "second", "said"),
    [
        ((90.0,), (80.0,), "10.00 points behind; with one seed nothing tells whether that is chance (--seeds 0,1,2 would)."),
        ((90.1, 80.2), (80.1, 70.2), "10.00 points behind with each seed, which gives no interval: more seeds would tell"),
    ],
)
def test_without_an_interval_nothing_is_called_more_than_chance(best, second, said):
    found = result(best, second)
    assert math.isnan(found.lead.low)
    assert said in found.reading()
    assert "more than chance" not in found.reading()
    assert (found.to_dict()["lead"]["low"], found.to_dict()["lead"]["high"]) == (None, None)


def test_what_has_no_next_one_has_no_lead():
    assert (result((90.0, 91.0)).lead, result((90.0, 91.0)).to_dict()["lead"]) == (None, None)


def test_lists_are_shown_as_they_are_typed():
    values = {"resolutions": ((16, 0.5), (32, 0.5)), "max_lr": 0.1}
    one = Combination(values, (TrialRun("r", 0, 1.0, 90.0, 1.0),))
    found = SweepResult("sweep", None, 0.1, (0,), (one,))
    assert found.table().rows[0][:2] == ("[[16, 0.5], [32, 0.5]]", "0.1")
    assert "validation accuracy: resolutions [[16, 0.5], [32, 0.5]], max_lr 0.1, with 90.00 %." in found.reading()
    assert str(Task(values, 0)) == "resolutions='[[16, 0.5], [32, 0.5]]' max_lr=0.1 seed=0"
    typed = "--resolutions '[[16, 0.5], [32, 0.5]]' --max-lr 0.1 --seed 0"
    assert as_typed(f"Trial 1 of 4: {Task(values, 0)}", "options") == f"Trial 1 of 4: {typed}"
