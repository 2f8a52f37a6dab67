# `make` alone lists the targets. Each creates .venv itself when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .peers-venv
PEERS_STAMP := $(PEERS)/.installed
CASES ?= 400
SEED ?= 1
# groups in the order that tests/conftest.py gives them, long ones first; tests also wait, so more workers than processors; each imports all
WORKERS ?= 6
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder
NOTHING_MISSING ?=
SECONDS ?= 60
TARGETS ?=

.DEFAULT_GOAL := help
.PHONY: help demo pictures test quick lint types docs pythons fuzz chaos bench peers ci clean

# bytecode that was compiled once serves every process that the tests start
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q -c constraints.txt -e . --group dev
	@touch $@

demo: $(STAMP)  ## a real project end to end, in a temporary folder; KEEP=1 leaves its server running, to look at
	$(BIN)/whenthen demo $(if $(KEEP),--stay)

pictures: $(STAMP)  ## the pages during the demo, in the folder pictures, wide and narrow, light and dark
	$(BIN)/python -m tools.page_pictures pictures

test: $(STAMP)  ## the whole test suite
	$(PYTEST) --durations 12 $(if $(NOTHING_MISSING),--nothing-missing)

quick: $(STAMP)  ## the pure tests, in under a minute: for while you work
	$(PYTEST) -m quick -n auto tests/unit tests/conformance

lint: $(STAMP)  ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

docs: $(STAMP)  ## what is made from the code: docs/settings.md, the tables of docs/prefect.md
	$(BIN)/python -m tools.settings_page docs/settings.md
	$(BIN)/python -m tools.prefect_page docs/prefect.md

pythons:  ## the wheel's demo and the quick tests on each supported Python that is here
	.ci/pythons

fuzz: $(STAMP)  ## every fuzz target and the HTTP API, SECONDS each; TARGETS names some
	$(BIN)/python -m pip install -q --group fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) $(TARGETS)

CHAOS_SECONDS ?= 1800
KILLS ?= 220

chaos: $(STAMP)  ## kill everything at random under load, then compare with a replay (SEED, KILLS, at most CHAOS_SECONDS)
	$(BIN)/python -m tests.chaos --seed $(SEED) --seconds $(CHAOS_SECONDS) --kills $(KILLS)

bench: $(STAMP)  ## every benchmark, as JSON
	$(BIN)/python -m pip install -q --group bench
	$(BIN)/python -m benchmarks

$(PEERS_STAMP): benchmarks/peers/requirements.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q -r benchmarks/peers/requirements.txt
	@touch $@

peers: $(STAMP) $(PEERS_STAMP)  ## Prefect's own evaluator and ours on the same random cases (CASES=400 SEED=1)
	$(BIN)/python benchmarks/peers/differential.py --peer $(PEERS)/bin/python --seed $(SEED) --count $(CASES)

ci:  ## what CI runs: fresh environment, lint, types, contracts, every test without exception, the other Pythons
	rm -rf $(VENV)
	$(MAKE) lint types
	WHENTHEN_TEST_EXAMPLES=all $(MAKE) test NOTHING_MISSING=1
	$(MAKE) demo
	.ci/pythons

clean:  ## remove the virtual environment and build leftovers
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache
