# What can be done here; `make` prints the menu. Only python3 and make are needed.

PYTHON ?= python3
ARGS ?=
# One more than there are CPUs, since tests wait a good deal; and no more than four.
PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 4); echo $$((n < 3 ? n + 1 : 4)))

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo run test soak fuzz bench check format coverage clean

help:  ## this menu
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: $(STAMP)  ## smtpguard and all it needs into .venv, once; PYTHON=python3.13 for another Python
	@echo "Ready: $(BIN)/smtpguard"

demo: $(STAMP)  ## the case of 2019 in small, on this machine; ARGS=--once ends by itself
	@$(BIN)/smtpguard demo $(ARGS)

run: $(STAMP)  ## the guard, with config/smtpguard.toml; ARGS="-c FILE" for other settings
	@$(BIN)/smtpguard $(ARGS) serve

test: $(STAMP)  ## all tests; ARGS=tests/unit or ARGS="-k NAME" for some, NO_SKIP=1 to skip none
	@# Compiled once: many tests start the guard as a process.
	@PYTHONDONTWRITEBYTECODE='' $(BIN)/pytest --quiet --numprocesses $(PROCESSES) --dist worksteal $(ARGS)

soak: $(STAMP)  ## guard, store and smarthost killed under load; SECONDS=600, SEED=N, ARGS="--engine sqlite"
	@$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: $(STAMP)  ## random input for parsers, sessions and the API; SECONDS=60 for each, ARGS=mailbox for one parser
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(ARGS)
	@FUZZ_SECONDS=$(or $(SECONDS),60) $(BIN)/pytest --quiet tests/integration/smtp/test_state_machine.py tests/integration/web/test_schemathesis.py

bench: $(STAMP)  ## the guard beside Postfix and no system, into docs/benchmarks.md; ARGS=--quick, ARGS="--cells c10,k10"
	@$(BIN)/python -m benchmarks $(ARGS)

check: $(STAMP)  ## format, lint, types and layers
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)  ## format the code, mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

coverage: $(STAMP)  ## all tests, and which lines they do not meet
	@PYTHONDONTWRITEBYTECODE='' $(BIN)/pytest --quiet --numprocesses logical --maxprocesses 4 --dist worksteal --cov --cov-report term $(ARGS)

clean:  ## remove what can be made again: .venv, caches, builds; never a store
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* dist
	find smtpguard migrations tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# PIP_CONSTRAINT reaches into the build too; a newer pip wants PIP_BUILD_CONSTRAINT for that.
$(STAMP): export PIP_CONSTRAINT = constraints.txt
$(STAMP): export PIP_BUILD_CONSTRAINT = constraints.txt
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("smtpguard needs Python 3.11 or newer, $(PYTHON) is %d.%d: make install PYTHON=..." % sys.version_info[:2])'
	@echo "Installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)
