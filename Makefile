# One command each, from a fresh checkout: Python 3.11 or later and make are all it takes.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench bench-quick bench-scale notebooks docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## fit 4,037 aircraft and draw a figure: demo-output/
	@$(BIN)/mlekit demo

test: $(VENV)/.test ## lint, types, and all tests but the slow ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist worksteal

test-all: $(VENV)/.test ## make test, with the slow tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

DEVICE ?= cpu

bench: $(VENV)/.bench ## how fast it is, beside its peers: about an hour; DEVICE=gpu for a GPU
	@$(BIN)/python -m benchmarks --device $(DEVICE)

bench-quick: $(VENV)/.bench ## all workloads of make bench at small size, in under 3 minutes
	@$(BIN)/python -m benchmarks --quick --device $(DEVICE)

bench-scale: $(VENV)/.test ## rows beyond memory, groups beyond a machine: half an hour, 6 GB of disk
	@$(BIN)/python -m benchmarks.scale

notebooks: $(VENV)/.test ## run all notebooks at full size and store their outputs: a quarter of an hour
	@$(BIN)/python notebooks/renew.py

docs: $(VENV)/.docs ## the documentation: a web site in site/, for a disk or a server
	@# The theme warns of a version of mkdocs that pyproject.toml does not allow.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --config-file docs/mkdocs.yml
	@echo "the site is in site/: open site/index.html"

clean: ## remove what was made here, the environment too
	rm -rf $(VENV) demo-output scale-data site .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what the environment holds; it is renewed when pyproject.toml has changed.
$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	@echo "setting up $(VENV) ..."
	@$(INSTALL) -e ".[plots]"
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	@echo "setting up $(VENV) for the tests, which takes a few minutes ..."
	@$(INSTALL) -e ".[test]"
	@touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.bench: pyproject.toml | $(VENV)/.made
	@echo "setting up $(VENV) with the peers, which takes a few minutes ..."
	@$(INSTALL) -e ".[bench]"
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	@echo "setting up $(VENV) for the documentation ..."
	@$(INSTALL) -e ".[docs]"
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("mlekit wants Python 3.11 or later, this is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12")'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
