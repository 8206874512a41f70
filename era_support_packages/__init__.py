"""Train an image classifier, see what it looks at, and test whether to believe it.

The package behind `notebooks/gradcam_cifar10.ipynb` is also a library. A network, trained here or elsewhere, becomes a
`Classifier`, which predicts and explains:

    >>> from era_support_packages import Classifier, ResNet18, load
    >>> train, test = load("digits")
    >>> classifier = Classifier(ResNet18(10), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> predictions = classifier.predict(test)
    >>> explanation = classifier.explain(test, predictions.wrong()[:3], layers=["layer3", "layer4"])
    >>> explanation.maps.shape  # images, classes, layers, height, width
    (3, 1, 2, 16, 16)

`TrainingConfig.preset("cpu")` and `training.fit` train one, and `Classifier.load("runs/NAME")` loads that of a run. The parts:
`datasets`, `models`, `evaluation`, `gradcam`, `training`, `trust` (can the maps be believed?), `runs`, `plots`.
"""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

__version__ = "1.0.0"

if TYPE_CHECKING:
    from era_support_packages import (
        datasets as datasets,
        evaluation as evaluation,
        gradcam as gradcam,
        models as models,
        notebook as notebook,
        plots as plots,
        runs as runs,
        training as training,
        trust as trust,
    )
    from era_support_packages.classifier import Classifier as Classifier
    from era_support_packages.datasets.loading import load as load
    from era_support_packages.evaluation.predictions import Predictions as Predictions
    from era_support_packages.evaluation.tables import show as show
    from era_support_packages.gradcam.explanation import Explanation as Explanation, explain as explain
    from era_support_packages.models.resnet import (
        ResNet18 as ResNet18,
        ResNet34 as ResNet34,
        ResNet50 as ResNet50,
        ResNet101 as ResNet101,
        ResNet152 as ResNet152,
    )
    from era_support_packages.runs.folder import Run as Run
    from era_support_packages.training.config import TrainingConfig as TrainingConfig

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
