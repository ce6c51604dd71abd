# make demo   train an MLP on Fashion-MNIST and show it
# make test   the tests, with the examples of the README and the docstrings
# make test-long   the long proofs: crash safety, corruption, exactness
# make check  format, lint, types, import layers
# make bench  measurements beside the peers
#
# Each target makes the virtual environment .venv by itself; the second time takes seconds.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-long check format bench clean

help:
	@sed -n 's/^# //p' Makefile | head -5

$(VENV)/bin/python:
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "relume needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "==> installing relume and its tools into $(VENV) (5 GB with torch: a few minutes the first time)"
	@$(PIP) --editable '.[all]' --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.ready
	@echo "==> installing the peers that the benchmarks compare with"
	@$(PIP) --group bench
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/relume train fashion-mnist --epochs 5
	@echo
	@$(BIN)/relume runs

test: $(VENV)/.ready
	@echo "==> tests"
	@$(TEST) -m "not long"

test-long: $(VENV)/.ready
	@echo "==> the long proofs"
	@$(TEST) -m long -rP $(PROOFS)

check: $(VENV)/.ready
	@echo "==> format" && $(BIN)/ruff format --check
	@echo "==> lint" && $(BIN)/ruff check
	@echo "==> types" && $(BIN)/mypy
	@echo "==> import layers" && $(BIN)/lint-imports

format: $(VENV)/.ready
	@$(BIN)/ruff format && $(BIN)/ruff check --fix

bench: $(VENV)/.bench
	@$(BIN)/python bench/loop.py
	@$(BIN)/python bench/end_to_end.py
	@$(BIN)/python bench/stream.py
	@$(BIN)/python bench/imports.py
	@$(BIN)/python bench/checkpoint.py
	@$(BIN)/python bench/models.py
	@$(BIN)/python bench/transfer.py
	@$(BIN)/python bench/monitor.py
	@$(BIN)/python bench/history.py
	@$(BIN)/python bench/watch.py
	@$(BIN)/python bench/broken.py
	@$(BIN)/python bench/deterministic.py
	@$(BIN)/python bench/share.py
	@$(BIN)/python bench/ui.py
	@$(BIN)/python bench/restart.py
	@$(BIN)/python bench/reliability.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
