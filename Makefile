# `make` lists the targets. Every target that needs it makes the virtual environment first, once.
PYTHON ?= $(shell for v in 3.13 3.12 3.11 3; do command -v python$$v >/dev/null 2>&1 && python$$v -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo python$$v && break; done)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# TORCH_INDEX: the address of another package index to take torch and torchvision from, such as PyTorch's CPU builds.
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup check test smoke ablation-roialign report claims coco bench bench-ops figures clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

figures: $(STAMP) ## the drawings of ops/README.md and the sheet of drawn images
	$(PY) -m ops.figures
	$(PY) -m data.sheet data/sheet.png

setup: $(STAMP) ## the virtual environment (.venv), with torch and torchvision that match

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: expected Python 3.11, 3.12 or 3.13 on the PATH, found none; install one"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH) --constraint constraints.txt torch torchvision
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

check: $(STAMP) ## formatting, lint and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: $(STAMP) ## all tests
	$(PY) -m pytest -n auto

smoke: $(STAMP) ## the whole pipeline in seconds; its figures mean nothing
	$(PY) run.py study=roialign budget=smoke outputs=outputs/smoke
	$(PY) -m reports roialign --outputs outputs/smoke --out reports/out/smoke

ablation-roialign: $(STAMP) ## the main job: RoIPool and RoIAlign at strides 16 and 32, five seeds, and the report
	@$(PY) run.py study=roialign; status=$$?; $(PY) -m reports roialign && exit $$status

report: $(STAMP) ## the reports of all studies that have records
	$(PY) -m reports

claims: $(STAMP) ## the script's claims, slide by slide, from the records
	$(PY) -m reports.claims

coco: $(STAMP) ## fetches COCO 2017 (about 20 GB) into datasets/coco
	$(PY) -m data.download coco

bench: $(STAMP) ## training step and inference against torchvision's Mask R-CNN
	$(PY) -m ablations.bench

bench-ops: $(STAMP) ## RoI operators against torchvision's
	$(PY) -m ops.bench

clean: ## removes runs, generated reports and caches, not the virtual environment
	rm -rf outputs reports/out .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
