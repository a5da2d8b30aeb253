# Every command does the set-up that it needs, once, in $(VENV). Needed beforehand: Python 3.11 or newer, and make.
VENV          ?= .venv
VENV_LATEST   ?= .venv-latest
# The interpreters that these are made with; found on PATH or among pyenv's versions where they are not given.
PYTHON        ?= $(shell .ci/find-python 3.11)
LATEST_PYTHON ?= $(shell .ci/find-python 3.12)
# Where the real data sets are; the tests marked `realdata` run where this folder exists.
AGEVI_DATA    ?= ../shared/data
PYTEST_ARGS   ?=
# Which figures `make benchmarks` runs again: ids of its list, or quick.
RUN           ?=
NOTEBOOKS     ?= $(sort $(wildcard tutorials/*.ipynb))

# Threads that wait asleep: on a busy machine, waiting in a loop makes training several times slower.
export OMP_WAIT_POLICY ?= PASSIVE

bin := $(VENV)/bin
# Everything at once, so that a later group never moves what an earlier one installed.
pip_install := $(bin)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .

ifneq ($(wildcard $(AGEVI_DATA)/.),)
  marks :=
  export AGEVI_DATA := $(abspath $(AGEVI_DATA))
else
  marks := -m "not realdata"
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo benchmarks test test-fast test-latest test-lowest coverage package lint mypy format docs docs-code tutorials clean distclean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-core  ## Study the bundled data: train a clock, print the donors, write a report
	MPLBACKEND=Agg $(bin)/python -u -m agevi demo

benchmarks: $(VENV)/.installed-core  ## List the figures of the docs; RUN="id ..." or RUN=quick runs them again and compares
	$(bin)/python benchmarks/catalogue.py $(RUN)

test: $(VENV)/.installed-test  ## Run all tests (those on real data where AGEVI_DATA or ../shared/data exists)
	@$(if $(marks),echo "No folder $(AGEVI_DATA): the tests marked realdata are left out.")
	MPLBACKEND=Agg $(bin)/python -m pytest $(marks) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-test  ## Run the tests that are neither slow nor on real data
	MPLBACKEND=Agg $(bin)/python -m pytest -m "not slow and not realdata" $(PYTEST_ARGS)

test-latest:  ## Run all tests on Python 3.12 or newer, in .venv-latest
	@python="$(LATEST_PYTHON)"; test -n "$$python" || exit 1; \
	$(MAKE) --no-print-directory test VENV=$(VENV_LATEST) PYTHON="$$python"

test-lowest:  ## Run the fast tests with the lowest versions that pyproject.toml allows
	.ci/lowest "$(PYTHON)" $(PYTEST_ARGS)

coverage: $(VENV)/.installed-test  ## Run the tests that are not on real data, and show the lines of src that none runs
	MPLBACKEND=Agg $(bin)/python -m pytest -m "not realdata" --cov --cov-report=term --cov-report=xml $(PYTEST_ARGS)

package:  ## Build wheel and source distribution into dist, check them, and use the wheel in an empty environment
	@python="$(PYTHON)"; test -n "$$python" || exit 1; .ci/package "$$python"

lint: $(VENV)/.installed-lint  ## Check style, types and spelling
	@for pin in ruff codespell zizmor; do \
	  version=$$($(bin)/$$pin --version | grep -Eo '[0-9]+(\.[0-9]+)+') && \
	  grep -q "rev: v$$version  *# $$pin\$$" .pre-commit-config.yaml || \
	  { echo ".pre-commit-config.yaml does not name $$pin $$version, which pyproject.toml installs."; exit 1; }; \
	done
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/codespell
	$(bin)/zizmor --offline --no-progress --quiet .github

mypy: $(VENV)/.installed-lint
	$(bin)/mypy

format: $(VENV)/.installed-lint  ## Format the code and mend what ruff can mend
	$(bin)/ruff check --fix
	$(bin)/ruff format

docs: $(VENV)/.installed-doc  ## Build the site into docs/_build/html
	$(bin)/python -m sphinx --quiet --no-color --fail-on-warning -b html docs docs/_build/html
	$(bin)/python docs/check_links.py
	@echo "The site is in docs/_build/html/index.html."

docs-code: $(VENV)/.installed-core  ## Run the Python code of the pages of the guide
	$(bin)/python docs/run_code.py

tutorials: $(VENV)/.installed-tutorial  ## Execute the notebooks in place, with their outputs
	$(if $(NOTEBOOKS),,$(error No notebook in tutorials/))
	for notebook in $(NOTEBOOKS); do \
	  $(bin)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=900 \
	    --ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.record_timing=False "$$notebook" || exit 1; \
	done

clean:  ## Remove what was built, but not the environments
	rm -rf .coverage coverage.xml build dist docs/_build docs/developer/slots.md docs/generated docs/gallery.md docs/_static/gallery docs/tutorials .mypy_cache .pytest_cache .ruff_cache
	find src tests docs tutorials -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## Remove the environments too
	rm -rf $(VENV) $(VENV_LATEST)

# pip is renewed because reading dependency groups needs 25.1.
$(VENV)/.pip:
	@python="$(PYTHON)"; test -n "$$python" || exit 1; \
	"$$python" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "agevi needs Python 3.11 or newer.")' && \
	echo "Making $(VENV) with $$("$$python" --version)." && "$$python" -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.installed-core: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "Installing agevi into $(VENV); the first time this takes a few minutes."
	$(pip_install)
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed-core
	$(pip_install) --group $*
	@touch $@
