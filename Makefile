# Every target makes its own virtual environment; `python3`, a C++ compiler and `make` are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard fastsdm/_backends/cpp/* fastsdm/_backends/cpp/simd/*)
CPP := $(filter %.cpp %.hpp,$(NATIVE))

# Without a GPU the tests compare our calls with the signatures of CuPy and cuCIM, which import without CUDA.
# With a GPU its owner installs them, for the right CUDA version.
ifeq ($(shell uname -s)-$(shell command -v nvidia-smi rocm-smi),Linux-)
INTERFACES := $(BIN)/pip install --quiet --no-deps -c constraints.txt \
    cupy-cuda12x cucim-cu12 cuda-pathfinder lazy-loader
endif

# HERE=1: make gpu takes $(PYTHON) as it is, with the torch, Triton, CuPy and pytest it has, and installs nothing.
GPU_PYTHON := $(if $(HERE),$(PYTHON),$(BIN)/python)
# These tests need no GPU, and import more packages than the GPU tests.
WITHOUT_GPU := benchmarks cli examples integrations _backends/test_native.py data/test_mni.py

# Tests that run the C++ code.
SANITIZED := $(addprefix tests/_backends/test_,native.py native_axes.py finish.py contract.py) \
    $(addprefix tests/test_,nearest.py instances.py) tests/metrics/test_native_surfaces.py

# Packages come after the standard library, since one brings an old argparse. The sources, which -c adds, go.
PYTEST_WITHOUT_SITE := import os, sys; sys.path[:1] = []; sys.path.append(os.environ["PURELIB"]); \
    import pytest; sys.exit(pytest.main(sys.argv[1:]))

.DEFAULT_GOAL := help
.PHONY: help install demo test quick test-integrations check fix docs guide dist bench gpu gpu-minutes sanitize clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt pip
	# torch first: with it in place nothing else may choose another build of it.
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	# nnU-Net's timm needs one class of torchvision. Its Linux wheels are built for CUDA and cannot be imported
	# with a torch for the CPU. 0.16 is the last version that imports without its operators.
	$(BIN)/python -W ignore -c 'import torchvision' 2>/dev/null \
	    || $(BIN)/pip install --quiet --no-deps torchvision==0.16.2
	$(INTERFACES)
	@touch $@

install: $(STAMP)  ## make the virtual environment with everything in it

demo: $(STAMP)  ## the main job on a real volume: times, a short training, a figure under out/
	$(BIN)/python -m examples.demo --out out

test: $(STAMP)  ## the test suite
	$(BIN)/python -m pytest -m "not gpu" -n 2 --ignore tests/integrations

quick: $(STAMP)  ## the tests but for the slow ones and whole programs
	$(BIN)/python -m pytest -m "not gpu and not slow and not integration" -n 2 --ignore tests/integrations

test-integrations: $(STAMP)  ## the integrations in real runs of MONAI, TorchIO, nnU-Net and Lightning
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/integrations

# The benchmark runs even if tests fail: it checks its own results, and a GPU may not be available again.
gpu: $(if $(HERE),,$(STAMP))  ## on a machine with a GPU: its tests, and the benchmark into benchmarks/results/ (HERE=1: no venv)
	$(GPU_PYTHON) -m benchmarks --gpu --find $(if $(PARTIAL),--partial)
	@$(GPU_PYTHON) -m pytest -m gpu $(if $(WORKERS),-n $(WORKERS)) $(addprefix --ignore=tests/,$(WITHOUT_GPU)); tests=$$?; \
	$(GPU_PYTHON) -m benchmarks --gpu $(if $(PARTIAL),--partial) $(if $(QUICK),--quick) && exit $$tests

# For a GPU that is available for minutes: every command runs even if an earlier one failed.
GPU_CASES := blobs-128,batch-2-classes-4-128x128x128,blobs-256,ct-64x512x512,blobs-512
gpu-minutes: $(if $(HERE),,$(STAMP))  ## the same in five minutes: fast tests, host, some maps, losses, steps, nearest voxels
	$(GPU_PYTHON) -m benchmarks --gpu --find --partial
	@$(GPU_PYTHON) -m pytest -m "gpu and not slow" -q $(if $(filter 0,$(WORKERS)),,-n $(or $(WORKERS),8)) $(addprefix --ignore=tests/,$(WITHOUT_GPU)); failed=$$?; \
	$(GPU_PYTHON) -m benchmarks.host --rounds 2 || failed=1; \
	$(GPU_PYTHON) -m benchmarks --gpu --partial --quick --parts maps,losses,steps --cases $(GPU_CASES) --minutes 2 || failed=1; \
	$(GPU_PYTHON) -m benchmarks.studies.registers || failed=1; exit $$failed

bench: $(STAMP)  ## time everything beside its peers, into benchmarks/results/ (QUICK=1: three minutes)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

check: $(STAMP)  ## ruff, clang-format, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP)  ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

docs: $(STAMP)  ## the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

guide: $(STAMP)  ## run docs/guide.md: it trains a network and draws the pictures under docs/img
	$(BIN)/python -m docs.run docs/guide.md --pictures docs/img

dist: $(STAMP)  ## wheel and sdist, into build/dist, each tried in an environment of its own
	PYTHON=$(PYTHON) .ci/dist $(CURDIR)/$(BIN)

# Without site the editable install stays out of the way and the sanitized one is found first.
sanitize: $(STAMP)  ## the native backend's tests with its kernel built under ASan and UBSan
	rm -rf build/sanitize
	$(BIN)/pip install --quiet --no-deps --target build/sanitize -C build-dir=build/sanitize-cmake \
	    -C cmake.define.FASTSDM_SANITIZE=ON .
	PURELIB=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') PYTHONPATH=build/sanitize \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 $(BIN)/python -S -c '$(PYTEST_WITHOUT_SITE)' $(SANITIZED) \
	    -k "(native or finish or nearest or instances) and not scipy"

clean:  ## remove the virtual environment and everything built
	rm -rf $(VENV) build out .pytest_cache .mypy_cache .ruff_cache
