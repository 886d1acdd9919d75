# Fieldscope. A machine needs Python 3.11 (or later), make and a package registry; `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
ADAPTORS_VENV := .venv-adaptors
CLIENTS_VENV := .venv-clients
RAY_VENV := .venv-ray
STUDIO_VENV := .venv-studio
VLLM_VENV := .venv-vllm
FOLDERS := core cache prompts retrieval agent eval fieldnotes service
PYTEST_WORKERS ?= 2

# The lock is made on 3.11, so that one comes first. A name that does not start (a pyenv shim) is passed over.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
NEED_PYTHON = test -n "$(PYTHON)" || { \
	echo "Fieldscope needs Python 3.11 or later: install it, or name it with 'make PYTHON=/path/to/python3.11 ...'" >&2; \
	exit 1; }

# The namespace `fieldscope` as links to its folders: mypy does not see through the build's package directories.
LINK_TREE = mkdir -p build/src/fieldscope && ln -sfn $(foreach folder,$(FOLDERS),$(CURDIR)/$(folder)) $(CURDIR)/fieldscope/*.py \
	build/src/fieldscope/

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start many processes. Each would compile all sources again where this is set, as in many container images.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup environments demo test check messages test-slow test-ui test-adaptors test-clients test-ray test-studio \
	test-vllm test-nightly test-all bench lock train clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready ## make .venv from requirements.lock (skipped where nothing changed)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(NEED_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.lock
	@rm -rf fieldscope.egg-info  # metadata of an older build, which would hide the installed entry points
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## the main job on the bundled benchmark: rerank, and print the improvement
	$(BIN)/fieldscope demo

environments: setup $(foreach suite,adaptors clients studio vllm,.venv-$(suite)/.ready) ## of the suites of .ci/run

# One thread a worker: two test processes with two threads each are slower on two cores. What lies in the folders left
# out would be collected, with all that it imports, by every worker.
test: setup ## every test that needs no server
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		-m "not slow and not ui and not adaptors and not clients and not ray and not studio and not vllm" \
		$(foreach folder,slow ui adaptors clients ray studio vllm,--ignore tests/$(folder)) -n $(PYTEST_WORKERS) --dist worksteal

check: setup ## ruff, mypy --strict, the rules for imports, clocks in tests, words and messages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(LINK_TREE)
	$(BIN)/mypy -p fieldscope -p checks -p benchmarks
	$(BIN)/python checks/imports.py
	$(BIN)/python checks/run_manifests.py
	$(BIN)/python -m checks.clocks
	$(BIN)/python -m checks.words
	$(BIN)/python -m checks.messages

messages: setup ## write docs/messages.md, which lists every error and warning
	$(BIN)/python -m checks.messages --write

$(VLLM_VENV)/.ready: tests/vllm/setup.sh tests/vllm/requirements.lock tests/vllm/sitecustomize.py
	@$(NEED_PYTHON)
	sh tests/vllm/setup.sh "$(PYTHON)" $(VLLM_VENV)

test-slow: setup ## tests that take minutes; needs Chromium for the HTML report
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not nightly" \
		$(foreach folder,ui adaptors clients ray studio vllm,--ignore tests/$(folder)) -n $(PYTEST_WORKERS) --dist worksteal

test-ui: setup ## the viewer in a real browser, live and exported
	sh tests/ui/setup.sh
	$(BIN)/python -m pytest -m ui tests/ui

$(ADAPTORS_VENV)/.ready: tests/beside.sh tests/adaptors/requirements.lock $(VENV)/.ready
	sh tests/beside.sh $(BIN)/python $(ADAPTORS_VENV) $(VENV) tests/adaptors/requirements.lock

test-adaptors: setup $(ADAPTORS_VENV)/.ready ## LangChain, LlamaIndex, MTEB and an MCP client rank pictures
	$(ADAPTORS_VENV)/bin/python -m pytest -m adaptors tests/adaptors

$(CLIENTS_VENV)/.ready: tests/clients/setup.sh tests/clients/requirements.lock
	@$(NEED_PYTHON)
	sh tests/clients/setup.sh "$(PYTHON)" $(CLIENTS_VENV)

test-clients: setup $(CLIENTS_VENV)/.ready ## the service, called by other projects' clients
	$(CLIENTS_VENV)/bin/python -m pytest -m "clients and not nightly" tests/clients

$(RAY_VENV)/.ready: tests/beside.sh tests/ray/requirements.lock $(VENV)/.ready
	sh tests/beside.sh $(BIN)/python $(RAY_VENV) $(VENV) tests/ray/requirements.lock

test-ray: setup $(RAY_VENV)/.ready ## images and evaluations on two nodes of a Ray cluster
	OMP_NUM_THREADS=1 $(RAY_VENV)/bin/python -m pytest -m ray tests/ray

$(STUDIO_VENV)/.ready: tests/studio/setup.sh tests/studio/requirements.lock requirements.lock pyproject.toml
	@$(NEED_PYTHON)
	sh tests/studio/setup.sh "$(PYTHON)" $(STUDIO_VENV)

test-studio: setup $(STUDIO_VENV)/.ready ## the agent in LangGraph Studio's real server
	$(BIN)/python -m pytest -m studio tests/studio

test-vllm: setup $(VLLM_VENV)/.ready ## the bundled model under a real vLLM server on the CPU
	$(BIN)/python -m pytest -m "vllm and not nightly" tests/vllm

test-nightly: setup $(CLIENTS_VENV)/.ready $(VLLM_VENV)/.ready ## whole evaluations, simulations, speed; one test at a time
	$(BIN)/python -m pytest -m nightly tests/slow tests/fieldnotes tests/service/test_cli.py tests/service/test_dataset_runs.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m hypothesis --hypothesis-profile thorough \
		$(foreach folder,slow ui adaptors clients ray studio vllm,--ignore tests/$(folder))
	$(CLIENTS_VENV)/bin/python -m pytest -m nightly tests/clients
	$(BIN)/python -m pytest -m nightly tests/vllm

bench: setup ## ratios of speed, memory and calls, measured on this machine: docs/benchmarks.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.all

test-all: check test test-slow test-ui test-adaptors test-clients test-ray test-studio test-vllm test-nightly ## all of these

# Trains the two models in fieldnotes/models from scratch, in this order: the LMM has the CLIP's vision tower and learns
# from its mistakes. It takes hours on two idle cores, minutes on a GPU, and continues where it was stopped.
train: setup ## train the two bundled models again
	$(BIN)/python -m fieldscope.fieldnotes.training.clip
	$(BIN)/python -m fieldscope.fieldnotes.training.lmm

# Freezes a fresh environment. What torch brings along on a machine with its CUDA build is left out, as is the
# "+cpu" of one without: torch's own pins decide that on each machine.
lock: ## write requirements.lock from pyproject.toml
	@$(NEED_PYTHON)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --upgrade setuptools
	build/lock/bin/python -m pip install -e '.[dev]'
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude fieldscope \
		| sed -E -e '/^(nvidia|cuda|triton)/d' -e 's/\+cpu$$//' > requirements.lock
	rm -rf build/lock

clean: ## remove the environments and the files of tools (runs and the user's caches stay)
	rm -rf $(VENV) $(ADAPTORS_VENV) $(CLIENTS_VENV) $(RAY_VENV) $(STUDIO_VENV) $(VLLM_VENV)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find $(FOLDERS) fieldscope benchmarks checks tests -name __pycache__ -type d -prune -exec rm -rf {} +
