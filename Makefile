# `make` lists the targets. Every target that needs it makes the virtual environment first, once.
PYTHON ?= $(shell for v in 3.13 3.12 3.11 3; do command -v python$$v >/dev/null 2>&1 && python$$v -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo python$$v && break; done)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# TORCH_INDEX: the address of another package index to take torch and torchvision from, such as PyTorch's CPU builds.
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

STUDIES := roialign roiops maskloss maskclass maskhead multitask rpn fcis
ABLATIONS := $(addprefix ablation-,$(STUDIES))

.DEFAULT_GOAL := help
.PHONY: help setup check test torture smoke $(ABLATIONS) ablations status report claims gallery coco bench bench-resnet bench-study bench-ops figures \
	clean

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

torture: $(STAMP) ## kills a tiny study at 50 random moments and counts what it survives (a quarter of an hour)
	$(PY) -m tests.torture

smoke: $(STAMP) ## the whole pipeline in seconds; its figures mean nothing
	$(PY) run.py study=roialign budget=smoke outputs=outputs/smoke
	$(PY) -m reports roialign --outputs outputs/smoke --out reports/out/smoke

$(ABLATIONS): ablation-%: $(STAMP)
	@$(PY) run.py study=$*; status=$$?; $(PY) -m reports $* && exit $$status

ablation-roialign: ## the main job: RoIPool and RoIAlign at strides 16 and 32, five seeds, and the report
ablation-roiops: ## is it alignment or bilinear sampling? RoIPool, RoIWarp and RoIAlign
ablation-maskloss: ## independent masks or competing ones: sigmoid and softmax
ablation-maskclass: ## a mask for each class or one for all
ablation-maskhead: ## convolutions or fully connected layers in the mask branch
ablation-multitask: ## what the mask branch does to boxes, and what it costs
ablation-rpn: ## how many proposals find the objects
ablation-fcis: ## Mask R-CNN and FCIS where objects overlap

ablations: $(STAMP) ## all studies, sharing stages and runs, and the claims ledger
	@status=0; for study in $(STUDIES); do $(MAKE) --no-print-directory ablation-$$study || status=1; done; \
	$(PY) -m reports.claims && exit $$status

status: $(STAMP) ## what is done, running, failed and missing, how long to go, and disk use
	@$(PY) -m ablations.status

report: $(STAMP) ## the reports of all studies that have records
	$(PY) -m reports

claims: $(STAMP) ## the script's claims, slide by slide, from the records
	$(PY) -m reports.claims

gallery: $(STAMP) ## publishes the records and reports of full runs in reports/gallery
	$(PY) -m reports.gallery

coco: $(STAMP) ## fetches COCO 2017 (about 20 GB) into datasets/coco
	$(PY) -m data.download coco

bench: $(STAMP) ## training step and inference against torchvision's Mask R-CNN
	$(PY) -m ablations.bench.step

bench-resnet: $(STAMP) ## the same on ResNet-50 with a feature pyramid, with the same weights
	$(PY) -m ablations.bench.resnet

bench-study: $(STAMP) ## how well a study's runs share the cores, and what checkpoints cost
	$(PY) -m ablations.bench.study

bench-ops: $(STAMP) ## RoI operators against torchvision's
	$(PY) -m ops.bench

clean: ## removes runs, generated reports and caches, not the virtual environment
	rm -rf outputs reports/out .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
