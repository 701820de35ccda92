# make demo | test | check | wheel | evaluate | train   (make help lists them)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLIM := .venv-edge
RAY := .venv-ray
OPENVINO := .venv-openvino
PYTHONS ?= python3.11 python3.12 python3.13 python3.14
PIP := pip install --quiet --disable-pip-version-check
# `make evaluate DATA=...`, `make arena DATA=... POINTS=...`, `make train PHOTOS=...`, `make load REQUESTS=...`
DATA ?= ../shared/data/imagenet-sample
POINTS ?=
PHOTOS ?= ../shared/data/photos
RUNS ?= runs
REQUESTS ?= 20000
# tests of one file share what they train or start, so files are dealt out, not tests; SIDE_BY_SIDE= runs them one by one
SIDE_BY_SIDE ?= -n auto --maxprocesses 4 --dist loadfile

# $(call under_each,TARGET): a Python that is not on this machine is said and left out, the first under which TARGET fails ends it
define under_each
+@tried=; for python in $(PYTHONS); do \
	$$python -c 0 2> /dev/null || { echo "$$python is not here"; continue; }; \
	$(MAKE) $(1) PYTHON=$$python SLIM=.venv-$$python VENV=.venv-$$python-all || exit; tried="$$tried $$python"; \
done; test -n "$$tried" && echo "held under$$tried"
endef

.PHONY: help demo test test-all test-slim check format wheel wheel-device evaluate arena ablations latency results plots train load soak soak-ray soak-openvino soak-pythons soak-pythons-all clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.edge  ## photographs -> packets -> a slow link -> answers; writes demo-out/index.html
	$(BIN)/splitcodec demo

test: test-all test-slim  ## all tests, and those of the runtime again where torch is not installed

test-all: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-slim: $(SLIM)/.slim
	$(SLIM)/bin/python -c "import importlib.util as u; assert u.find_spec('torch') is None, 'torch is installed'"
	OMP_NUM_THREADS=1 $(SLIM)/bin/python -m pytest -q $(SIDE_BY_SIDE) tests/wire tests/device tests/edge tests/hostile tests/golden tests/test_session.py tests/test_torch_free.py tests/test_readme.py

check: $(VENV)/.dev  ## lint, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/results.py --check

format: $(VENV)/.dev  ## rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(VENV)/.build  ## build dist/splitcodec-*.whl
	$(BIN)/python -m build --wheel --outdir dist

wheel-device: $(VENV)/.build  ## build the wheel for devices: the zoo's device halves alone
	$(BIN)/python deploy/device_wheel.py --out dist

evaluate: $(VENV)/.dev  ## measure the shipped bundle beside three codecs: evaluate-out/ (DATA=folder)
	$(BIN)/splitcodec evaluate --bundle efficientnet-lite0 --data $(DATA) --codecs jpeg,webp,avif --out evaluate-out

arena: $(VENV)/.dev  ## our bundles, rivals in runs/rivals and every codec in one run: reports/rate_accuracy/ (DATA=folder, POINTS=files)
	$(BIN)/python benchmarks/rate_accuracy.py --data $(DATA) $(addprefix --points ,$(POINTS)) --out reports/rate_accuracy

ablations: $(VENV)/.dev  ## what the prior is worth: reports/ablation_prior.json (DATA=folder)
	$(BIN)/python benchmarks/ablations.py --data $(DATA) --out reports/ablation_prior.json

latency: $(VENV)/.dev  ## from picture to answer over links of several rates, after `make arena`: reports/latency.json
	$(BIN)/python benchmarks/latency.py --check-link

results: $(VENV)/.dev  ## write docs/results.md, docs/load.md and the marked blocks of README and docs/ out of reports/
	$(BIN)/python benchmarks/results.py

plots: $(VENV)/.dev  ## draw the plots in reports/ anew out of the JSON beside them, after a change of how they look
	$(BIN)/python benchmarks/plots.py

train: $(VENV)/.dev  ## train the shipped bundles again, each after what it is led by (PHOTOS=folder, RUNS=folder)
	for size in _large _medium "" _tiny; do \
		MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 \
		$(BIN)/splitcodec train recipes/efficientnet_lite0$$size.yaml --photos $(PHOTOS) --out $(RUNS)/efficientnet_lite0$$size || exit; \
	done

soak: $(VENV)/.dev  ## tests that take long: a million mutated packets, bundles, faults (Ray's: soak-ray, other Pythons': soak-pythons); other random examples
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak --timeout 3600 -o faulthandler_timeout=3700
	HYPOTHESIS_PROFILE=soak OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(SIDE_BY_SIDE) tests/wire tests/hostile tests/device

soak-ray: $(RAY)/.ray  ## Ray Serve under load while a replica is killed; puts the extra ray into .venv-ray, prints one line of figures
	$(RAY)/bin/python -c "import ray"
	OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest -q -m soak --timeout 900 -o faulthandler_timeout=960 tests/edge/test_grow.py

soak-openvino: $(OPENVINO)/.openvino  ## tests of the runtime on OpenVINO instead of ONNX Runtime's own kernels, in .venv-openvino; it keeps memory for every shape
	SPLITCODEC_PROVIDERS=openvino OMP_NUM_THREADS=1 $(OPENVINO)/bin/python -m pytest -q $(SIDE_BY_SIDE) \
		--deselect tests/test_session.py::test_pictures_of_many_shapes_leave_no_plans_behind \
		tests/device tests/edge tests/hostile tests/golden tests/test_session.py

soak-pythons:  ## test-slim under each Python of PYTHONS that is on this machine, in .venv-python3.*
	$(call under_each,test-slim)

soak-pythons-all:  ## the same with test-all: PyTorch under each of them, in .venv-python3.*-all (6 GB each)
	$(call under_each,test-all)

load: $(VENV)/.dev  ## the edge server under load, each answer checked, killed twice: reports/load.json (REQUESTS=number)
	$(BIN)/python benchmarks/load.py --requests $(REQUESTS) --out reports/load.json

clean:  ## remove what make made (not runs/)
	rm -rf $(VENV) $(SLIM) $(RAY) $(OPENVINO) $(addprefix .venv-,$(PYTHONS) $(PYTHONS:=-all)) dist build demo-out evaluate-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'splitcodec needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.edge: pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP) -e '.[edge]'
	touch $@

# wheels want no torch: whoever builds one for a board need not fetch it
$(VENV)/.build: pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP) -e . 'build>=1.2'
	touch $@

# torch's wheel is large: the first time this takes a minute or two
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.edge $(VENV)/.build

$(SLIM)/.slim: pyproject.toml
	$(PYTHON) -m venv $(SLIM)
	$(SLIM)/bin/$(PIP) -e '.[edge,mqtt]' 'pytest>=9.0' 'pytest-timeout>=2.4' 'pytest-xdist>=3.8' 'hypothesis>=6.130'
	touch $@

$(OPENVINO)/.openvino: pyproject.toml
	$(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/$(PIP) -e '.[edge,mqtt]' 'pytest>=9.0' 'pytest-timeout>=2.4' 'pytest-xdist>=3.8' 'hypothesis>=6.130'
	$(OPENVINO)/bin/pip uninstall -q -y onnxruntime
	$(OPENVINO)/bin/$(PIP) onnxruntime-openvino
	touch $@

$(RAY)/.ray: pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/$(PIP) -e '.[edge,ray]' 'pytest>=9.0' 'pytest-timeout>=2.4' 'hypothesis>=6.130'
	touch $@
