# `make` lists the targets. A target that needs the virtual environment creates it first, once.
#
# Variables:  PYTHON         interpreter for the virtual environment; the default is the newest supported one on the PATH
#             TORCH_INDEX    address of another package index for torch and torchvision, such as PyTorch's CPU builds
#             TORCH_VERSION  a release of torch, such as 2.11; the default is the newest
#             WORKERS        processes that run tests; the default is one per core
#             LOCKED=1       the versions of pylock.toml for everything but torch and torchvision
PYTHON ?= $(shell for v in 3.13 3.12 3.11 3; do command -v python$$v >/dev/null 2>&1 && python$$v -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo python$$v && break; done)
WORKERS ?= auto
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

STUDIES := roialign misalignment roiops maskloss maskclass maskhead multitask rpn fcis
LONG_STUDIES := length stages
ABLATIONS := $(addprefix ablation-,$(STUDIES) $(LONG_STUDIES))

.DEFAULT_GOAL := help
.NOTPARALLEL: # targets share one virtual environment and, in studies, all cores
.PHONY: help setup setup-dev check test test-fast torture smoke taste $(ABLATIONS) ablations status report claims gallery republish site coco \
	bench bench-resnet bench-study bench-ops gpu figures lock clean

help: ## print this list
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Studies: train every arm on every seed, then write and print the report

ablation-roialign: ## the main study: RoIPool and RoIAlign at strides 16 and 32
ablation-misalignment: ## what rounding a box costs, by how many pixels it is rounded to
ablation-roiops: ## alignment or interpolation? RoIPool, RoIWarp and RoIAlign
ablation-maskloss: ## independent or competing masks? sigmoid and softmax
ablation-maskclass: ## one mask per class, or one for all classes?
ablation-maskhead: ## convolutions or fully connected layers in the mask branch?
ablation-multitask: ## what the mask branch does to boxes, and what it costs
ablation-rpn: ## how many proposals it takes to find the objects
ablation-fcis: ## Mask R-CNN and FCIS where objects overlap
ablation-length: ## do the gaps of maskhead and maskloss close with longer training? (not in `make ablations`)
ablation-stages: ## the main study, with a backbone and a proposal network for each seed (not in `make ablations`)

$(ABLATIONS): ablation-%: $(INSTALLED)
	@$(PY) run.py study=$*; status=$$?; $(PY) -m reports $* && exit $$status

ablations: $(INSTALLED) ## all of the studies above but the long ones, sharing stages and runs, and the claims page
	@status=0; for study in $(STUDIES); do $(MAKE) --no-print-directory ablation-$$study || status=1; done; \
	$(PY) -m reports.claims && exit $$status

taste: $(INSTALLED) ## RoIPool and RoIAlign in two minutes, one seed each: a first look, not a measurement
	@$(PY) run.py study=taste; status=$$?; $(PY) -m reports taste && exit $$status

smoke: $(INSTALLED) ## a tiny study from training to report, to check the installation; its numbers mean nothing
	$(PY) run.py study=roialign budget=smoke outputs=outputs/smoke
	$(PY) -m reports roialign --outputs outputs/smoke --out reports/out/smoke

##@ Results

status: $(INSTALLED) ## runs that are done, running, failed or missing; time left; disk use
	@$(PY) -m ablations.status

report: $(INSTALLED) ## write the report of every study that has records
	$(PY) -m reports

claims: $(INSTALLED) ## compare the video's claims with the records
	$(PY) -m reports.claims

gallery: $(INSTALLED) ## publish complete studies in reports/gallery, and their numbers in the tables of README and docs
	$(PY) -m reports.gallery
	$(PY) -m tools.result_tables

republish: $(INSTALLED) ## render the published reports again from the published records, after a change of text or charts
	$(PY) -m tools.republish

site: $(INSTALLED) ## build the site (story, playground, reports) in site/
	$(PY) -m reports.web

##@ Data

coco: $(INSTALLED) ## download COCO 2017 (about 20 GB) to datasets/coco
	$(PY) -m data.download coco

##@ Benchmarks

bench: $(INSTALLED) ## a training step and inference compared with torchvision's Mask R-CNN; what part of a study's step is arithmetic
	$(PY) -m ablations.bench.step
	$(PY) -m ablations.bench.arithmetic

bench-resnet: $(INSTALLED) ## the same with ResNet-50, a feature pyramid and equal weights
	$(PY) -m ablations.bench.resnet

bench-study: $(INSTALLED) ## how well parallel runs use the cores, and what checkpoints cost
	$(PY) -m ablations.bench.study

bench-ops: $(INSTALLED) ## the RoI operators compared with torchvision's
	$(PY) -m ops.bench

gpu: $(INSTALLED_DEV) ## on a machine with an NVIDIA GPU: tests, operators, training steps and a study, in ten minutes
	$(PY) -m tools.gpu

##@ Development

setup: $(INSTALLED) ## create .venv with what studies and reports need; other targets do this by themselves
setup-dev: $(INSTALLED_DEV) ## create .venv with all of it: also tests, linters, Ray, submitit and TensorBoard

test: $(INSTALLED_DEV) ## run all tests
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup

test-fast: $(INSTALLED_DEV) ## run the quick tests only, for daily work
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

check: $(INSTALLED_DEV) ## check formatting, lint and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

torture: $(INSTALLED_DEV) ## kill a tiny study 50 times, flip bits in its files, and compare its results (15 minutes)
	$(PY) -m tests.torture

figures: $(INSTALLED) ## redraw the figures of ops/README.md and data/README.md
	$(PY) -m ops.drawings
	$(PY) -m data.sheet data/sheet.png

lock: $(INSTALLED) ## write pylock.toml: the installed versions of all dependencies except torch and torchvision
	$(PIP) uv packaging
	$(PY) tools/lock.py write

clean: ## remove runs, generated reports and caches, but not .venv
	rm -rf outputs reports/out site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# --- The virtual environment. The dev stamp covers the other one, so that `make test` on a fresh clone installs once.

TORCH := "torch$(if $(TORCH_VERSION),==$(TORCH_VERSION).*)"

define install
	@test -n "$(PYTHON)" || { echo "error: expected Python 3.11, 3.12 or 3.13 on the PATH, found none: install one, or name it with make PYTHON=..."; exit 1; }
	@echo "Installing in $(VENV); torch takes several GB on Linux, and a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade "pip>=24"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --constraint constraints.txt $(TORCH) torchvision
	@$(if $(LOCKED),$(PY) tools/lock.py requirements >$(VENV)/locked.txt && $(PIP) --no-deps --requirement $(VENV)/locked.txt)
	@$(PIP) --constraint constraints.txt --editable ".[$(1)]"
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(call install,wandb)
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(INSTALLED) $@
