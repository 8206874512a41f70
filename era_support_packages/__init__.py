"""Train a CIFAR-10 classifier and see what it looks at: the support package behind `notebooks/gradcam_cifar10.ipynb`."""

__version__ = "1.0.0"
