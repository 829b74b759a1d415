# Everything a person does with this repository, one word each. `make help` explains.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/platform.lock
# Half of the tests' time is market time, waited for: two files at once take little more than the longer one. The order of
# the files is that of tests/conftest.py, the longest first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# uv does not read pip's settings: hand over what a machine may have set for pip.
empty :=
space := $(empty) $(empty)
comma := ,
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
export UV_HTTP_TIMEOUT ?= 180
# Without bytecode files every one of the line's processes would compile torch or TensorFlow again.
unexport PYTHONDONTWRITEBYTECODE
export UV_LINK_MODE ?= copy

.PHONY: help setup demo repro test test-fast lint bench science platform lock proto clean

help:  ## this text
	@echo "Scalper: order books in, signed models out, a runner that trades them."
	@echo
	@echo "  make demo                 set up, then run the whole line on the simulated market (about 6 minutes):"
	@echo "                            data -> four models -> signed bundle -> registry -> gate -> live-runner on the paper exchange"
	@echo "      RECORDING=<path>      ... on your own recording instead (a recording's folder, or the MOEX RTS sample's folder)"
	@echo "      MINUTES=<n>           ... trade at most n minutes of market time"
	@echo "      SPEED=<x>             ... at x market seconds per second (default 20)"
	@echo "  make repro                only the pipeline: dvc repro (what is up to date is not run again)"
	@echo "  make test                 set up, then run every test"
	@echo "  make test-fast            the tests without the slow ones"
	@echo "  make lint                 ruff, mypy and the import contracts"
	@echo "  make bench                measure the hot paths and print the figures"
	@echo "  make science              the forecasting protocol on real recordings (SCALPER_DATA=<folder>, default ../shared/data),"
	@echo "                            then the honesty tests on simulated markets"
	@echo "      QUICK=1               ... the RTS day only, without DeepLOB and honesty tests"
	@echo "  make platform             the Prefect and MLflow servers on this machine, with the flows deployed (scalper down stops)"
	@echo "  make setup                only the environment ($(VENV), pinned by $(LOCK))"
	@echo "  make lock                 resolve the pins again, into requirements/"
	@echo "  make proto                generate the contract's Python stubs again"
	@echo "  make clean                remove what the pipeline and the servers wrote (keys and the environment stay)"
	@echo
	@echo "Then: $(BIN)/scalper --help, $(BIN)/live-runner --help"

setup: $(STAMP)  ## the environment, once

$(STAMP): $(LOCK) pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for python in $${PYTHON:-} python3 python3.13 python3.12 python3.11; do \
	    if command -v $$python >/dev/null && $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; then break; fi; \
	    python=; \
	  done; \
	  if [ -z "$$python" ]; then echo "no Python 3.11, 3.12 or 3.13 found: install one, or name it: make setup PYTHON=<path>" >&2; exit 2; fi; \
	  echo "==> a virtual environment in $(VENV) ($$($$python --version))"; \
	  $$python -m venv $(VENV); \
	fi
	@if [ ! -x $(BIN)/uv ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; fi
	@echo "==> the packages of $(LOCK)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r $(LOCK)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(STAMP)
	@echo "==> ready"

demo: setup  ## the whole line
	@$(BIN)/scalper demo $(if $(RECORDING),--recording "$(RECORDING)") $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SPEED),--speed $(SPEED))

repro: setup
	@$(BIN)/scalper repro

test: setup  ## every test; the few that fail are looked at once more, alone
	@$(BIN)/python -m pytest -q --cache-clear $(PARALLEL) || { [ $$? -eq 1 ] && $(BIN)/python tools/second_look.py; }

test-fast: setup
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow"

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy market features live/core
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/python bench/run.py

science: setup  ## forecasting skill on real recordings, with a verdict
	@$(BIN)/scalper science $(if $(QUICK),--quick)
	@$(if $(QUICK),:,$(BIN)/scalper science --honesty)

platform: setup
	@$(BIN)/scalper up

# A wheel folder may offer torch as a local version (+cpu): the lock names the public one, which both satisfy. Resolving torch
# afresh keeps uv from preferring the public one for that reason, and its CUDA packages with it.
lock: setup
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-find-links --custom-compile-command "make lock" \
	  --extra dev --upgrade-package torch -o $(LOCK) pyproject.toml
	@sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' $(LOCK)
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-find-links --custom-compile-command "make lock" \
	  --extra live -c $(LOCK) -o requirements/live.lock pyproject.toml
	@$(BIN)/python tools/results_lock.py
	@git diff --stat -- requirements || true

proto: setup
	@$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. market/contract/invest.proto

clean:
	@rm -rf data artifacts runtime dvc.lock .dvc/cache .dvc/tmp build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@echo "removed data/, artifacts/, runtime/, dvc.lock and the caches; keys/ and $(VENV) stay"
