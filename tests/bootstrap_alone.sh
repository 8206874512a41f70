#!/usr/bin/env bash
# The notebook file alone in an empty folder, in a fresh environment that holds only what Colab has preinstalled (and the
# runner): it must clone the repository, install what is missing, leave torch alone, and end well, twice.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"
"$python" -m pip install --quiet torch torchvision 'albumentations>=2.0.8,<2.1' matplotlib opencv-python-headless \
    torchsummary scikit-learn tqdm ipykernel nbmake pytest
git clone --quiet --bare . "$work/repository.git"
mkdir "$work/alone"
cp notebooks/gradcam_cifar10.ipynb "$work/alone/"
cd "$work/alone"
before=$("$python" -m pip freeze | grep -E '^torch(vision)?==')
for attempt in 1 2; do
    ERA_REPO_URL="file://$work/repository.git" NO_ALBUMENTATIONS_UPDATE=1 \
        "$python" -m pytest --nbmake --nbmake-timeout=600 gradcam_cifar10.ipynb
done
after=$("$python" -m pip freeze | grep -E '^torch(vision)?==')
[ "$before" = "$after" ] || { echo "torch has moved: $before became $after" >&2; exit 1; }
ls -d era_support_packages runs/smoke/*
echo "The notebook ran alone, twice; torch stayed as it was: $(echo "$after" | tr '\n' ' ')"
