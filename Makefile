# make demo: see digits being learned.  make test: the everyday tests.  make test-all: every test.
# make stress: hours that try to lose a run.
# make bench: speed and errors beside references, as a table.
# make gpu: tests and speed on a CUDA card, as a table.
# make docs: the documentation as a site, strictly.
# Each installs what it needs into .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-exact test-rest test-all stress bench gpu docs lint format wheel address clean

# torch alone and first: a bare range in a later install could replace it by another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt hatchling editables
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[test,lint]'
	touch $@

# One thread is faster than two on maps this small.
demo: export OMP_NUM_THREADS = 1
demo: $(VENV)/.installed
	$(BIN)/unidiff run recipes/ncsn_digits.yaml --out runs/ncsn_digits --overwrite
	@echo
	@echo "Learned from 1,500 handwritten digits, and drew new ones. The pictures are in $(CURDIR)/runs/ncsn_digits/samples:"
	@ls runs/ncsn_digits/samples

# One thread per process: two processes of many threads each would fight for the cores. The tests are compiled once.
test test-exact test-rest test-all: export OMP_NUM_THREADS = 1
test test-exact test-rest test-all: export MKL_NUM_THREADS = 1
test test-exact test-rest test-all: export PYTHONDONTWRITEBYTECODE =
PYTEST = $(BIN)/python -m pytest

# Two processes side by side that read their own half of the files: pytest-xdist would read all of them twice, and a
# third process would wait for both.
test test-exact test-rest: TESTS = not slow and not gpu
test-all: TESTS = not gpu
test test-all: $(VENV)/.installed
	@echo "Two halves side by side, some minutes (all tests: some ten). Each is printed when it is done."
	@$(MAKE) --no-print-directory --jobs=2 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync) test-exact test-rest TESTS="$(TESTS)"

test-exact: $(VENV)/.installed
	$(PYTEST) -m "$(TESTS)" tests/contracts tests/exact tests/golden

test-rest: $(VENV)/.installed
	$(PYTEST) -m "$(TESTS)" tests/end_to_end tests/unit

# Hours of kills, hostile inputs and full disks, none of which may cost a run: make stress STRESS="--only kills --count 50"
# REPEAT=kills/0/17 tries one case alone, as the table's lines say. --quick takes some minutes; --help lists the rest.
stress: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m stress $(STRESS) $(if $(REPEAT),--repeat $(REPEAT))

# Meant for a quarter of an hour on two free cores, and says what each part took; the table replaces that of docs/benchmarks.md.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/bench.py $(BENCH)

# Some 7 minutes on one card; without one it says so. UNIDIFF_GPU_BUDGET=60 make gpu takes about a minute.
gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py $(GPU)

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[docs]'
	touch $@

# docs/_build/html/index.html; any warning ends it. UNIDIFF_PAGES=- leaves the scripts of docs/learn out.
docs: export OMP_NUM_THREADS = 1
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The address of the repository, in place of the placeholder: make address URL=https://forge.example/somebody/unidiff
address:
	@test -n "$(URL)" || { echo "make address needs URL=https://..., the address of the repository"; exit 2; }
	old=$$(sed -n 's/^Repository = "\(.*\)"$$/\1/p' pyproject.toml) && \
	sed -i.bak "s|$$old|$(URL)|g" pyproject.toml README.md CITATION.cff && \
	rm -f pyproject.toml.bak README.md.bak CITATION.cff.bak

clean:
	rm -rf $(VENV) build dist docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
