"""What a log suggests to try next, with the values to type."""

import itertools

from era_support_packages.training.history import History

# Limits of a rule of thumb, set by hand.
HOT = 1.1  # times the loss of the epoch before: more than the noise between two epochs
GAP = 8.0  # points between training and held-out images
NEAR = 2.0  # points: the network does hardly better on the images that it was trained on
LEARNED = 98.0  # percent of the training images
_FEWEST = 3  # epochs that say something


def next_step(history: History) -> str:
    """One or two sentences: what the log shows, and what to type to see whether something else does better.

    Looked for in this order: a training loss that rose by more than a tenth from one epoch to the next, while the training images
    are not nearly all right, where a loss near zero may well double by chance (the rate is too high);
    training images that are right at least 8 points more often than those of the split that was looked at (over-fitted: it
    remembers); a difference of at most 2 points while the training images are not nearly all right (under-fitted: it could learn
    more). The accuracy on training images is that of augmented ones while training, which is a little too low.

    >>> from era_support_packages import TrainingConfig
    >>> from era_support_packages.training import EpochRecord, History, next_step
    >>> row = dict(lr=0.1, test_loss=1.25, test_correct=51, test_total=100, resolution=32, images=1000, seconds=3)
    >>> rates = [(2.0, 30, 35), (1.6, 42, 45), (1.4, 50, 51)]
    >>> records = [
    ...     EpochRecord(epoch=epoch, train_loss=loss, train_accuracy=train, test_accuracy=test, **row)
    ...     for epoch, (loss, train, test) in enumerate(rates, start=1)
    ... ]
    >>> history = History(tuple(records), TrainingConfig.preset("cpu", epochs=3, max_lr=0.1), None, planned=3)
    >>> print(next_step(history))
    Under-fitted: ... Try it longer: epochs = 6.
    """
    records, config = history.records, history.config
    if len(records) < _FEWEST:
        return f"{len(records)} epoch{'s' * (len(records) != 1)} say too little about what to try next."
    for before, after in itertools.pairwise(records):
        harmed = after.train_loss > HOT * before.train_loss and after.train_accuracy < LEARNED
        if harmed and after.resolution == before.resolution:
            rose = f"the training loss rose from {before.train_loss:.3f} to {after.train_loss:.3f} in epoch {after.epoch}"
            return f"Too hot: {rose}. Try a lower rate: max_lr = {config.max_lr / 2:g}."
    last = records[-1]
    scores = last.scores(last.watched)
    if scores is None:
        return "The last epoch was not looked at, so that nothing can be said of what to try next."
    gap = last.train_accuracy - scores.accuracy
    seen = (
        f"{last.train_accuracy:.1f} % of the training images are right and {scores.accuracy:.1f} % of the {last.watched} images"
    )
    if gap >= GAP:
        side = max(4, last.resolution // 4)
        more = f"cutout = {side}" if config.cutout < side else "weight_decay = " + f"{2 * config.weight_decay:g}"
        return f"Over-fitted: {seen}, so that it remembers more than it understands. Try more variation: {more}, or more images."
    if gap <= NEAR and last.train_accuracy < LEARNED:
        shown = sum(record.images for record in records)  # of a small data set fewer than train_images
        longer = f"epochs = {2 * config.epochs}" if config.epochs is not None else f"train_images = {2 * shown}"
        return f"Under-fitted: {seen}, so that it could still learn from them. Try it longer: {longer}."
    another = f"Try another seed to see how much of a difference chance makes: seed = {config.seed + 1}."
    return f"Neither over- nor under-fitted: {seen}. {another}"
