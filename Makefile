# Needs only make and Python 3.11 or newer. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CORES ?= all
# The tools keep caches in ~/.cache; where that cannot be written, here
NO_CACHE := $(shell test -n "$$HOME" && mkdir -p "$$HOME/.cache" 2>/dev/null && test -w "$$HOME/.cache" || echo yes)
ifdef NO_CACHE
export XDG_CACHE_HOME ?= $(CURDIR)/.snakemake/cache
endif
# of a clone that another user owns, too
GIT := git -c safe.directory='*'
# The locked torch, and its CPU build for CPython 3.11 on Linux with its SHA-256: taken on a machine without an NVIDIA driver
# where pip finds it; everywhere else the registry's own build comes, and on Linux the CUDA libraries with it
TORCH := 2.13.0
TORCH_CPU := torch==$(TORCH)+cpu --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

IMAGE := miram-repro
SIF := miram.sif
DOCKER_BUILD = docker build --file docker/Dockerfile --build-arg "PYTHON=$(BASE)" $(if $(CPU),--build-arg "TORCH_CPU=$(TORCH_CPU)") \
  --build-arg "VERSION=$$(sed -n 's/__version__ = "\(.*\)"/\1/p' miram/__init__.py)" --build-arg "COMMIT=$$($(GIT) rev-parse --verify HEAD || echo unknown)" \
  --build-arg "DIRTY=$$(test -z "$$($(GIT) diff --name-only HEAD -- . ':!results' ':!dvc.lock' || echo unknown; $(GIT) ls-files --others --exclude-standard -- miram workflow)" && echo false || echo true)"
BASE ?= python:3.11-slim-bookworm
CPU ?=

.PHONY: help setup demo headline small paper test test-containers image sif lint format lock clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## create .venv with the locked packages

$(VENV)/installed: requirements.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("miram needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV): some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@echo "$(TORCH_CPU)" > $(VENV)/torch-cpu.txt
	@command -v nvidia-smi >/dev/null || $(PIP) install --quiet --no-deps -r $(VENV)/torch-cpu.txt 2>/dev/null || true
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock
	@case "$$($(PIP) show torch | sed -n 's/^Version: //p')" in \
	*+cpu) ;; \
	*) $(PIP) install --quiet --require-hashes --no-deps -r requirements-cuda.lock ;; esac
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## the whole pipeline on the embedded archive, and its table
	@$(BIN)/snakemake --cores $(CORES) --config preset=demo
	@$(BIN)/miram --preset demo show
	@$(BIN)/miram --preset demo compare --brief || true # other numbers, as of another processor, are no fault of the run

paper: setup ## the whole pipeline on CBIS-DDSM, and its table
	@$(BIN)/snakemake --cores $(CORES) --config preset=paper
	@$(BIN)/miram --preset paper show

headline: setup ## the main comparison on CBIS-DDSM before the rest, which `make paper` then adds
	@$(BIN)/snakemake --cores $(CORES) --config preset=paper -- headline

small: setup ## the pipeline with small networks on the archive's own crops, some hours: make small CROPS=FOLDER
	@$(if $(CROPS),test -d "$(CROPS)" || { echo "CROPS=$(CROPS) is not a folder"; exit 1; })
	@$(if $(CROPS),test -L data/archive-crops || test ! -e data/archive-crops || { echo "data/archive-crops is there and is no link: move it away; or leave out CROPS to use it"; exit 1; })
	@$(if $(CROPS),mkdir -p data; test "$$(realpath data/archive-crops 2>/dev/null)" = "$$(realpath "$(CROPS)")" || { ln -sfn "$$(realpath "$(CROPS)")" data/archive-crops; rm -f data/small/catalogue.json; })
	@$(BIN)/snakemake --cores $(CORES) --config preset=small
	@$(BIN)/miram --preset small show

test: setup ## the default test suite
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-containers: setup ## one path through the image, Apptainer, Slurm and DVC; what cannot run here is skipped, with the reason
	@$(BIN)/python -m pytest -m "(container or cluster) and not slow" tests/containers

image: ## build the Docker image miram-repro (CPU=yes: without CUDA; BASE=IMAGE: on another Python image)
	@rm -f docker/wheels/*.whl
	@$(if $(CPU),echo "$(TORCH_CPU)" > docker/wheels/torch.txt && $(PYTHON) -m pip download --quiet --require-hashes --no-deps --only-binary :all: \
	  --python-version 3.11 --platform manylinux_2_28_x86_64 --dest docker/wheels --requirement docker/wheels/torch.txt)
	$(DOCKER_BUILD) --target software --tag $(IMAGE):software .
	$(DOCKER_BUILD) --build-arg "DIGEST=$$(docker image inspect --format '{{.Id}}' $(IMAGE):software)" --tag $(IMAGE) .
	@docker image inspect --format '$(IMAGE): {{.Size}} bytes, {{.Id}}' $(IMAGE)

sif: ## make miram.sif from the Docker image, for Apptainer
	apptainer build --force --disable-cache $(SIF_ARGS) $(SIF) docker-daemon:$(IMAGE):latest

lint: setup ## what CI checks of style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## apply the style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: ## resolve pyproject.toml anew into the two lock files
	$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	echo "torch==$(TORCH)" > $(VENV)-lock/torch.txt
	$(VENV)-lock/bin/uv pip compile --quiet --constraint $(VENV)-lock/torch.txt --universal --python-version 3.11 --extra dev --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --no-emit-find-links pyproject.toml -o $(VENV)-lock/all.lock
	awk 'BEGIN { print "# Made by `make lock` from pyproject.toml; installed with --no-deps. CUDA libraries: requirements-cuda.lock" > "requirements.lock"; \
	  print "# Made by `make lock`: what the CUDA build of torch loads; not needed beside its CPU build" > "requirements-cuda.lock" } \
	  /^[a-z]/ { file = /^(nvidia|cuda|triton)/ ? "requirements-cuda.lock" : "requirements.lock" } \
	  { print > file }' $(VENV)-lock/all.lock
	rm -r $(VENV)-lock

clean: ## remove what the demo made, but not results/
	rm -rf data/demo runs/demo logs/demo
