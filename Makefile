# ssmd: `make` lists what there is. Everything is installed into .venv; nothing needs root or Docker.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --no-input -q
ARGS   ?=

# With it set nothing is ever compiled to disk, and every process compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup up down test check bench docs lock

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.local  ## Install ssmd and the servers of the local stack into .venv

up: setup  ## Start the whole local stack and watch it (ARGS="-f FILE --exchange live ..."); Ctrl-C stops it
	@$(VENV)/bin/ssmd up $(ARGS)

down: setup  ## Stop what `make up` started
	@$(VENV)/bin/ssmd down $(ARGS)

test: $(VENV)/.dev  ## Run all tests side by side, with coverage thresholds (or some: ARGS="tests/unit -k name")
ifeq ($(strip $(ARGS)),)
	@$(PY) -m coverage erase
	@$(PY) -m tests.run
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report --format=total | sed 's/$$/ % of lines and branches/'
	@$(PY) -m coverage json -q -o .coverage.json
	@$(PY) .ci/thresholds.py .coverage.json 80 70
else
	@$(PY) -m pytest $(ARGS)
endif

check: $(VENV)/.dev  ## Lint, format, types, layers
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.dev  ## Measure the speed of every path against its limit, in one run
	@$(PY) -m tests.bench $(ARGS) || [ $$? -eq 6 ]  # 6: measured, and a bar was missed; the table says which

docs: $(VENV)/.dev  ## Write the generated reference pages again
	@$(PY) -m ssmd.config.reference
	@$(PY) dags/ssmd_catalogue.py

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

lock:  ## Resolve the locked requirements again (needs uv; ARGS=--upgrade for newer versions)
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv"; exit 2; }
	$(COMPILE) $(ARGS) --extra local --extra airflow --extra quality pyproject.toml -o requirements/local.txt
	$(COMPILE) $(ARGS) --extra local --extra airflow --extra quality --extra dev pyproject.toml -o requirements/dev.txt
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], "editables", sep="\n")' \
		| $(COMPILE) $(ARGS) -c requirements/dev.txt - -o requirements/build.txt

# --- stamps: made again only when what they depend on has changed ---

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
		echo "ssmd needs Python 3.11, 3.12 or 3.13; $(PYTHON) is `$(PYTHON) --version 2>&1`"; \
		echo "  Run: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) comes without venv and ensurepip"; \
		echo "  Install them (Debian, Ubuntu: apt install python3-venv) or use another: make setup PYTHON=..."; exit 2; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.local: requirements/local.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked packages into $(VENV) (a minute or two the first time)"
	@$(PIP) install --require-hashes -r requirements/local.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.local
	@echo "installing the locked development packages into $(VENV)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
