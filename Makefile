# make demo   installs into .venv and runs the whole pipeline on rendered scenes; opens nothing, writes demo/report.html
# make test   installs, checks style and types, runs the tests
# make check  ruff and mypy alone
# make docs   builds the pages into build/site
# make gpu    on a machine with a GPU and PyTorch, which may have no network: tests, tables, a training run and a profile,
#             in at most eight minutes; every table is written to GPU_OUT as soon as it is there. What that Python lacks
#             (open_clip_torch, ftfy, wcwidth) is taken from wheels in the folder WHEELS: `make wheels` fetches them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OPTIONS := --disable-pip-version-check
GPU_OUT ?= runs/gpu
WHEELS ?= .whl

.PHONY: install demo check test docs gpu wheels clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(OPTIONS) --quiet --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/hybrid-encoder demo --out demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each: most tests are small, and small nets gain nothing from two threads.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

docs: install
	$(BIN)/python -m pip install $(OPTIONS) --quiet --editable ".[docs]"
	$(BIN)/mkdocs build --strict

gpu:
	mkdir -p $(GPU_OUT)
	test ! -d $(WHEELS) || $(PYTHON) -m pip install $(OPTIONS) --quiet --no-index --no-deps --upgrade --target $(WHEELS)/site $(WHEELS)/*.whl
	PYTHONPATH=$(CURDIR):$(abspath $(WHEELS))/site $(PYTHON) benchmarks/gpu_day.py --out $(GPU_OUT)

wheels:
	$(PYTHON) -m pip download $(OPTIONS) --quiet --no-deps --only-binary=:all: --dest $(WHEELS) open_clip_torch==3.3.0 ftfy wcwidth

clean:
	rm -rf $(VENV) demo build *.egg-info
