# `make help` lists the targets. Needed: make and Python 3.11 to 3.13; everything else goes into .venv.
# Another Python, beside the first:  make test PYTHON=python3.12 VENV=.venv-3.12

FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done),python3)
VENV ?= .venv
BIN := $(VENV)/bin
FAST := not slow and not browser and not postgres and not ray
# In two processes, for half of the tests' time is waiting; tests/sharing.py says what runs in which.
PYTEST := $(BIN)/pytest -n 2

.DEFAULT_GOAL := help
.PHONY: run test check static test-compose clean help

run: $(VENV)/.installed ## search, retrain and test on a small study
	$(BIN)/hpo run studies/quickstart.yaml --workers 2

test: static ## lint, types, layers, and all tests
	$(PYTEST)

check: static ## the same with the fast tests only, in under two minutes
	$(PYTEST) -m "$(FAST)"

static: $(VENV)/.installed-dev ## lint, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test-compose: ## docker-compose.yml on this machine's Docker engine (an image of gigabytes)
	tests/compose.sh

clean: ## remove the environment and caches; studies' databases and results stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find hpo models tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile

# The stamps are as old as the last install, so that a second `make run` starts at once.
$(VENV)/.installed: pyproject.toml
	$(environment)
	@echo "Installing hpo into $(VENV) (some minutes at first: torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(environment)
	@echo "Installing hpo and what its tests need into $(VENV) (some minutes at first: torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.installed $@

# An environment without a working pip was interrupted while it was made, or its Python is gone.
define environment
@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON); hpo needs Python 3.11 to 3.13" >&2; exit 1; }; \
	$(PYTHON) -c '$(FITS)' || { echo "hpo needs Python 3.11 to 3.13, and $(PYTHON) is" \
		"$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])');" \
		"name another: make PYTHON=python3.12" >&2; exit 1; }; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module;" \
		"on Debian and Ubuntu it is the package python3-venv" >&2; exit 1; }; \
	$(PYTHON) -m venv --clear $(VENV); }
endef
