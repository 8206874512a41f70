PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export NO_ALBUMENTATIONS_UPDATE := 1
# Two processes of one thread each: the tests' networks are too small for two threads. ARGS="-n 0" for one process, as --pdb needs.
UNIT_TESTS := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed  ## Run the notebook into runs/ (ARGS="-p preset fast -p epochs 3")
	$(PY) -m era_support_packages.notebook run $(ARGS)

sweep: $(VENV)/.installed  ## Try values and train the best (ARGS="-p max_lr 0.05,0.1,0.2 -p cutout 0,8 --seeds 0,1,2")
	$(PY) -m era_support_packages sweep $(ARGS)

lab: $(VENV)/.browser  ## Open a working copy of the notebook, runs/lab/gradcam_cifar10.ipynb, in JupyterLab
	@mkdir -p runs/lab
	@[ -e runs/lab/gradcam_cifar10.ipynb ] || cp notebooks/gradcam_cifar10.ipynb runs/lab/
	$(PY) -m jupyterlab $(ARGS) runs/lab/gradcam_cifar10.ipynb

test: lint  ## Lint, unit tests but those of `make several`, and the notebook under nbmake (ARGS="-k gradcam")
	$(UNIT_TESTS) -m "not several" $(ARGS)
	$(PY) -m pytest --nbmake --nbmake-timeout=600 notebooks/gradcam_cifar10.ipynb

quick: $(VENV)/.installed  ## The quick unit tests alone, in two minutes on two cores (ARGS="-k gradcam")
	$(UNIT_TESTS) -m "not slow and not unhurried and not several" $(ARGS)

several: $(VENV)/.installed  ## Training and sweeps by several processes, and runs that are stopped in the middle (ARGS="-k torchrun")
	$(UNIT_TESTS) -m several $(ARGS)

lint: $(VENV)/.installed  ## Check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

render: $(VENV)/.installed  ## Make the notebook's outputs and images/ again (ARGS="-p finished_run runs/NAME")
	$(PY) tools/render.py $(ARGS)

bench: $(VENV)/.installed  ## Measure throughput, a step, augmentation and Grad-CAM into benchmarks/results/; print the stored accuracies
	$(PY) benchmarks/throughput.py --steps 1 --rounds 4 --all --json benchmarks/results/throughput.json
	$(PY) benchmarks/throughput.py --pixels 16 --batch-size 32 --steps 12 --all --json benchmarks/results/throughput_16px.json
	$(PY) benchmarks/step_layers.py --json benchmarks/results/step_layers.json
	$(PY) benchmarks/augmentation.py --json benchmarks/results/augmentation.json
	$(PY) benchmarks/gradcam.py --json benchmarks/results/gradcam.json
	$(PY) benchmarks/screening.py
	$(PY) benchmarks/accuracy.py

scaling: $(VENV)/.installed  ## Measure training over one and two processes, or over the GPUs, into benchmarks/results/ (under ten minutes)
	$(PY) benchmarks/scaling.py --json benchmarks/results/scaling.json $(ARGS)

browser: $(VENV)/.browser  ## The notebook in JupyterLab in a headless Chromium; pictures of the page go to runs/browser/
	$(PY) -m pytest --import-mode=prepend --override-ini python_files='check_*.py' tests/browser $(ARGS)

faults: $(VENV)/.installed  ## Kill a training process again and again; nothing may be lost (ARGS="--kills 40 --seed 0")
	$(PY) tests/support/kill_runs.py $(ARGS)

faults-several: $(VENV)/.installed  ## The same with one of two processes under torchrun (ARGS="--kills 40 --seed 0")
	$(PY) tests/support/kill_several.py $(ARGS)

colab:  ## The notebook alone and the unit tests with the versions that Colab has (COLAB_PYTHON=PATH ARGS="-k gradcam")
	$(PYTHON) tests/environments/check.py colab $(ARGS)

lowest:  ## The same with the lowest versions and the lowest Python that are declared (LOWEST_PYTHON=PATH)
	$(PYTHON) tests/environments/check.py lowest $(ARGS)

$(VENV)/.installed: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.browser: $(VENV)/.installed tests/browser/requirements.txt
	$(PY) -m pip install --quiet --requirement tests/browser/requirements.txt
	@touch $@

.PHONY: help run sweep lab test quick lint render bench scaling faults faults-several browser colab lowest
