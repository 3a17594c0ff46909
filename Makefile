# `make` lists what there is. Each target first sets up .venv when it is missing or older than pyproject.toml.
# Settings:  make PYTHON=python3.12 test     make test TEST_ARGS="-k sampler"     make PIP_ARGS="--index-url URL" test

PYTHON ?= python3
PIP_ARGS ?=
TEST_ARGS ?=
DEMO_ARGS ?=

BIN := .venv/bin
DEMO := output/demo
INSTALLED := .venv/.installed

# This tree, wherever its folder was moved to, and nothing of the caller's Python path.
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## set up .venv with everything the other targets need

# Interrupted, it resumes where it was. To start from scratch: rm -r output/demo
demo: $(INSTALLED) ## train three models on generated gestures, compare them (about 4 minutes on 2 cores)
	$(BIN)/python tools/run_net.py --cfg configs/Gestures/StreamTimeSformer_demo.yaml OUTPUT_DIR $(DEMO)/StreamTimeSformer TRAIN.AUTO_RESUME True $(DEMO_ARGS)
	$(BIN)/python tools/run_net.py --cfg configs/Gestures/LightTimeSformer_demo.yaml OUTPUT_DIR $(DEMO)/LightTimeSformer TRAIN.AUTO_RESUME True $(DEMO_ARGS)
	$(BIN)/python tools/run_net.py --cfg configs/Gestures/TimeSformer_8x32_demo.yaml OUTPUT_DIR $(DEMO)/TimeSformer_8x32 TRAIN.AUTO_RESUME True $(DEMO_ARGS)
	$(BIN)/python tools/compare_runs.py $(DEMO)/StreamTimeSformer $(DEMO)/LightTimeSformer $(DEMO)/TimeSformer_8x32 --out $(DEMO)/comparison.png
	$(BIN)/timesformer predict $(DEMO)/StreamTimeSformer "$$(ls data/gestures/*/test/*.avi | tail -n 1)"
	rm -f $(DEMO)/StreamTimeSformer.onnx
	$(BIN)/timesformer export $(DEMO)/StreamTimeSformer $(DEMO)/StreamTimeSformer.onnx --to onnx --clips data/gestures/*/val

test: $(INSTALLED) ## run the tests on up to 2 processes
	$(BIN)/python -m pytest -n logical --maxprocesses 2 $(TEST_ARGS)

lint: $(INSTALLED) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove caches and build leftovers; .venv and output stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchmarks tests timesformer tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "No '$(PYTHON)' here. Install Python 3.10 or newer, or name yours: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$$($(PYTHON) --version) is too old: 3.10 or newer is needed. Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv: PyTorch and the rest are several GB, so this takes some minutes, once."
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) --editable '.[test,dev]'
	@touch $@
	@echo "Done. In each new shell: . .venv/bin/activate"
