# Two commands for a fresh machine: `make demo` runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENV    ?= auto-demo
SEED   ?=

.PHONY: demo test lint types layers pytest clean

# Remade whenever the dependencies change; an interrupted installation leaves no stamp.
$(VENV)/stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "labrys needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# 30 s of partitions and kills against five nodes; in namespaces where they are allowed, else Docker.
demo: $(VENV)/stamp
	@set -e; env='$(ENV)'; \
	if [ "$$env" = auto-demo ]; then \
		if $(BIN)/labrys doctor --quiet netns; then env=netns; else env=docker; fi; \
	fi; \
	$(BIN)/labrys test --env $$env --nodes 5 --workload register --faults partition,kill \
		--time-limit 30 $(if $(SEED),--seed $(SEED))

test: lint types layers pytest

lint: $(VENV)/stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(BIN)/zizmor --quiet --offline .github/workflows

types: $(VENV)/stamp
	$(BIN)/mypy
	$(BIN)/mypy tests

layers: $(VENV)/stamp
	$(BIN)/lint-imports

pytest: $(VENV)/stamp
	$(BIN)/pytest

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
