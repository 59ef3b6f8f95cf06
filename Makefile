# The two commands that matter: `make demo` and `make test`. Both set everything up first.
VENV ?= .venv
BIN := $(VENV)/bin
# The first Python in the supported range; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

# Without cached bytecode every start of the stack costs many seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test lint bench matrix clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml tools/constraints.txt tools/setup.sh
	@bash tools/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

# SEEDS=3 trains it with three seeds and shows their means, in as many times the time.
demo: setup
	$(BIN)/python tools/demo.py $(if $(SEEDS),--seeds $(SEEDS))

# Fast tests; with CI=true also those marked slow. One thread a process: the tensors are tiny.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(if $(CI),--durations=40,-m "not slow")

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Layers beside nn.BatchNorm2d in training and evaluation, and compilations over 50 image sizes, in
# a few minutes on two idle cores; the report is in work_dirs/benchmark. BENCH='--norms SN' chooses.
bench: setup
	$(BIN)/python tools/benchmark.py --quick $(BENCH)
	$(BIN)/python tools/benchmark.py --random-sizes 50 $(BENCH)

# The tests on the oldest, the pinned and the newest versions, into docs/matrix.md: hours, GBs.
# MATRIX='--rows floor newest --slow' chooses.
matrix: setup
	$(BIN)/python tools/matrix.py $(MATRIX)

clean:
	rm -rf $(VENV)
