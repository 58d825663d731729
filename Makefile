# make demo   installs into .venv and runs the whole pipeline on rendered scenes; opens nothing, writes demo/report.html
# make test   installs, checks style and types, runs the tests
# make check  ruff and mypy alone
# make docs   builds the pages into build/site

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OPTIONS := --disable-pip-version-check

.PHONY: install demo check test docs clean

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

clean:
	rm -rf $(VENV) demo build *.egg-info
