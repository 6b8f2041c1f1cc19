# make demo   train on the embedded digits, end to end
# make test   the quick tests;  make test-slow  the long ones;  make check  lint and types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUICK := not slow and not gpu

.PHONY: setup demo test test-slow check clean
setup: $(VENV)/ready

$(VENV)/torch: constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("fastnt needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: run make with PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt torch
	@touch $@

$(VENV)/ready: $(VENV)/torch pyproject.toml CMakeLists.txt $(wildcard kernels/*/*.[ch]pp)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m fastnt.data.install_ffcv
	@touch $@

demo: setup
	$(BIN)/fastnt train --runs-dir runs

test: setup
	$(BIN)/python -m pytest -n 2 -m "$(QUICK)"

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not gpu"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
