# Two commands from a fresh clone: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
FILES ?= 300

.PHONY: demo test test-all fuzz lint format model clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/ready  ## Index a small synthetic corpus with the bundled model, then search it
	$(BIN)/earshot demo

test: $(VENV)/ready lint  ## Lint, types, and every test that is not marked slow; the same examples every time
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder --hypothesis-profile=ci

test-all: test  ## The slow tests as well
	$(BIN)/python -m pytest -m slow -n 3 --dist loadfile --no-loadscope-reorder --hypothesis-profile=ci

fuzz: $(VENV)/ready  ## Index damaged files of every format: make fuzz SEED=7 FILES=2000
	EARSHOT_FUZZ_SEED=$(SEED) EARSHOT_FUZZ_FILES=$(FILES) $(BIN)/python -m pytest -m slow -s tests/integration/test_fuzz.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m jobs.reference --check
	$(BIN)/mypy

format: $(VENV)/ready  ## Format the code, and generate jobs/README.md
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m jobs.reference

model: $(VENV)/ready  ## Train the bundled model anew (took 22 minutes on one busy core)
	$(BIN)/python -m jobs.tiny.train
	$(BIN)/python -m jobs.tiny.card

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
