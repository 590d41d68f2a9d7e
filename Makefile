# Everything a person or CI runs. Needs Python >= 3.11 with venv, and make; nothing else by hand.
.DEFAULT_GOAL := help
.PHONY: help setup run demo test bench soak check format lock clean
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
# The newest interpreter that is new enough; say PYTHON=... for another.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 \
	&& $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$p && break; done)
# Of the lock file, so that setup, CI and the image use the same uv.
UV := uv==$(shell sed -n '/^name = "uv"$$/{n;s/^version = "\(.*\)"$$/\1/p;}' uv.lock)
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_NO_PROGRESS := 1

help: ## Show what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv from the lock file; seconds when nothing changed

$(STAMP): uv.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found: install the package python3" \
	"(3.11 or newer), or say PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv:" \
	"install the package python3-venv (on Debian and Ubuntu: apt-get install python3-venv)" >&2; \
	exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import importlib.metadata as m, sys; sys.exit("uv==" + m.version("uv") != sys.argv[1])' \
	$(UV) 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(BIN)/uv sync --locked --quiet
	@touch $@

run: setup ## Serve on 127.0.0.1:8080 with the embedded store
	@$(BIN)/gateway serve

demo: setup ## See hits and misses; needs no key and no network
	@$(BIN)/gateway demo

test: setup ## All tests, those against a real server included
	@$(BIN)/pytest -n logical -m "not alone"
	@$(BIN)/pytest -m alone

bench: setup ## Measure beside nginx; QUICK=1, CASES=door,miss, PEERS=1
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(PEERS),--peers) \
	$(if $(CASES),--cases "$(CASES)") $(if $(SIZES),--sizes "$(SIZES)")

soak: setup ## Half an hour of mixed traffic: nothing may grow; MINUTES=5
	@$(BIN)/python -m tests.helpers.soak --minutes $(or $(MINUTES),30)

check: setup ## Format, lint, types, architecture
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests/test_architecture.py

format: setup ## Let the formatter and the linter mend what they can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: ## Bring the lock file up to date with pyproject.toml
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory setup
	@$(BIN)/uv lock

clean: ## Remove what setup and the tools made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
