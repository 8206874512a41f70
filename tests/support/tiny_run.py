"""What makes a run of a few steps, on a command line."""

TINY = ["--preset", "smoke", "--dataset", "digits", "--train-images", "64", "--batch-size", "32", "--resolutions", "[[8, 1.0]]"]
TINY += ["--device", "cpu", "--precision", "fp32", "--model", "resnet_custom"]
