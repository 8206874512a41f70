"""A sweep: trials judged on a validation split, then the chosen values trained on all training images, and tested."""

import errno
import json
from dataclasses import replace

from era_support_packages.runs.data_sets import load_asked
from era_support_packages.runs.preparation import Report
from era_support_packages.runs.search import run_search
from era_support_packages.runs.starting import chosen_preset, data_asked
from era_support_packages.runs.sweep_jobs import Jobs, SharedTrainer, share_machine
from era_support_packages.runs.sweep_locks import at_work
from era_support_packages.runs.sweep_plan import SweepPlan
from era_support_packages.runs.sweep_result import COMPLETE, FAILED, Combination, SweepResult
from era_support_packages.runs.sweep_values import SweepError
from era_support_packages.runs.trials import GO_ON, Task, Trainer, as_given, train_all
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.interrupts import sigterm_interrupts
from era_support_packages.system.plain_error import PlainError


class NothingTrainedError(PlainError, RuntimeError):
    """No trial of a sweep came to its end, or the last training did not."""


def run_sweep(plan: SweepPlan, data_root: str | None, report: Report, jobs: int | str = 1) -> SweepResult:
    """Train all trials of a checked plan, choose, train the choice on all images, and write `NAME.json` beside the runs.

    What is finished already is not trained again, and what another process trains is left to it and waited for. After Ctrl-C a
    sentence says how to go on.

    jobs: how many processes train trials at once, each with a GPU or a share of the threads; "all" is one for each GPU, or for
    each thread of a CPU. One that ends is named, and another one takes its trial, once. Ctrl-C and SIGTERM end all.

    Raises `SweepError` and `ValueError` for what cannot be done as asked, before anything runs, `NothingTrainedError` where no
    combination came to its end, and what `train_prepared` raises, but for a trial that diverges or does not fit into the
    memory: that is part of the result.
    """
    fixed = plan.fixed
    data = load_asked(data_asked(fixed, plan.preset, data_root), data_root, report)
    if plan.preset == "auto":
        train = data[0]
        found = chosen_preset(dict(fixed), len(train), train.image_size, data_root, report)
        plan = plan.with_preset(found)
        plan.check()
    trainer = Trainer(plan, data, data_root, report)
    trainer.check()
    shared = share_machine(jobs, fixed.get("device"))
    with at_work(trainer.root, alone=shared.count == 1):
        try:
            if shared.count == 1:
                return _sweep(trainer)
            return _sweep_shared(trainer, shared)
        except KeyboardInterrupt:
            report(f"The sweep was stopped. {GO_ON}")
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SweepError(f"There is no room left in {trainer.root} ({error.strerror}): make some. {GO_ON}") from None


def _sweep_shared(trainer: Trainer, jobs: Jobs) -> SweepResult:
    """The same by several processes, which are ended with it."""
    trainer.report(f"{jobs.count} processes train the trials, each with {jobs.each}.")
    shared = SharedTrainer.of(trainer, jobs)
    with sigterm_interrupts():
        try:
            return _sweep(shared)
        finally:
            shared.seats.close()


def _sweep(trainer: Trainer) -> SweepResult:
    plan, name = trainer.plan, trainer.name
    tried = _grid(trainer) if plan.trials is None else run_search(trainer, name, plan.trials)
    result = SweepResult(name, trainer.root, plan.fixed["validation"], plan.seeds, tuple(tried))
    if not result.ranked:
        problem = next((run.problem for one in tried for run in one.runs if run.problem), "")
        raise NothingTrainedError(f"No combination could be trained to its end. {problem}".strip())
    best = result.chosen
    trainer.report(f"Chosen: {as_given(best.values)}. These values are trained again on all training images, and tested.")
    finals = train_all(trainer, [Task(best.values, seed, final=True) for seed in plan.seeds], "Last training")
    if problem := next((run.problem for run in finals if run.problem), ""):
        raise NothingTrainedError(f"The chosen values ({best.text}) failed on all training images: {problem}")
    result = replace(result, finals=tuple(finals))
    write_atomically(trainer.root / f"{name}.json", (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    return result


def _grid(trainer: Trainer) -> list[Combination]:
    """Every combination with every seed."""
    combinations, seeds = trainer.plan.combinations(), trainer.plan.seeds
    tasks = [Task(values, seed) for values in combinations for seed in seeds]
    trainer.report(f"{len(tasks)} trials: {len(combinations)} combinations, each with {len(seeds)} seed{'s' * (len(seeds) > 1)}.")
    runs = train_all(trainer, tasks, "Trial")
    found = []
    for position, values in enumerate(combinations):
        own = tuple(runs[position * len(seeds) : (position + 1) * len(seeds)])
        found.append(Combination(values, own, FAILED if any(run.problem for run in own) else COMPLETE))
    return found
