# make demo   train on the embedded digits, end to end
# make test   the quick tests;  make test-slow  the long ones;  make check  lint and types
# make test-kills   kill prepare and a run at every filesystem call (minutes)
# make setup TORCH_INDEX=URL   take torch from another index, such as PyTorch's own of CPU builds
# make examples   fastnt's loss in other libraries, each in an environment of its own (downloads them)
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
QUICK := not slow and not gpu

.PHONY: setup demo test test-slow test-kills check examples clean
setup: $(VENV)/ready

$(VENV)/torch: constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("fastnt needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: run make with PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX) )torch
	@touch $@

$(VENV)/ready: $(VENV)/torch pyproject.toml CMakeLists.txt $(wildcard kernels/*/*.[ch]pp)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m fastnt.data.install_ffcv
	@touch $@
	@echo "fastnt is installed; go on with: source $(BIN)/activate && fastnt train"

demo: setup
	$(BIN)/fastnt train --runs-dir runs

test: setup
	$(BIN)/python -m pytest -n 2 -m "$(QUICK)"

test-slow: setup
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu"

test-kills: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/fastnt/killing.py every

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# An environment on top of .venv, whose torch it keeps: %_PACKAGES are what the example needs besides.
hf_trainer_PACKAGES := transformers accelerate
lightning_trainer_PACKAGES := lightning
torchdistill_yaml_PACKAGES := --no-deps torchdistill==1.1.5 cython pyyaml
kd_lib_distiller_PACKAGES := --no-deps kd-lib==0.0.32
EXAMPLES := hf_trainer lightning_trainer torchdistill_yaml kd_lib_distiller

examples: setup
	@set -e; $(foreach example,$(EXAMPLES),\
	  environment=build/examples/$(example); \
	  $(BIN)/python -m venv $$environment; \
	  echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	    > $$($$environment/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/fastnt.pth; \
	  $(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $$environment/torch.txt; \
	  $$environment/bin/python -m pip install --quiet --no-compile -c $$environment/torch.txt $($(example)_PACKAGES); \
	  $$environment/bin/python examples/$(example).py;)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
