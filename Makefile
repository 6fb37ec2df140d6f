# vislang: `make demo` and `make test` work on a machine that has only Python (>= 3.11).
# They build .venv with uv where it is installed, else with pip, and build it again only when
# pyproject.toml or constraints.txt change.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= $(wildcard ../shared/data)
WORKERS ?= 2
TEST_EXTRAS := towers,data,images,search,words,ray,mteb,dev
# One thread a process: the pytest workers share the cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(if $(DATA),VISLANG_TEST_DATA="$(abspath $(DATA))") $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: help demo domain-demo scratch-demo test check slow format bench setup constraints clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

demo: $(VENV)/.core  ## train, evaluate and report on real digits: runs/demo/report.html
	$(BIN)/vislang demo --out runs/demo

domain-demo: $(VENV)/.all  ## described domains, from a web collection on loopback to fine-tuning
	VISLANG_TEST_DATA="$(abspath $(DATA))" $(ONE_THREAD) $(BIN)/python benchmarks/domain_line.py --out runs/domains

scratch-demo: $(VENV)/.all  ## from words of Wikipedia to a judged model: runs/scratch/run/report.html
	VISLANG_TEST_DATA="$(abspath $(DATA))" $(BIN)/python benchmarks/scratch_line.py --out runs/scratch

test: $(VENV)/.all  ## every test, under 10 minutes on 2 cores
	$(PYTEST)

check: $(VENV)/.all  ## format, lint, types and the fast tests, under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(PYTEST) -q -m "not slow"

slow: $(VENV)/.all  ## measure anew which tests `check` leaves out: tests/slow.txt
	: > tests/slow.txt
	$(PYTEST) -q -m "not slow" --durations 0 --durations-min 0.1 | $(BIN)/python tests/slow_tests.py

format: $(VENV)/.all  ## let ruff put files in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench  ## every benchmark; results into benchmarks/results.jsonl and docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

setup: $(VENV)/.all  ## only set up .venv with everything that tests need

constraints: $(VENV)/.all  ## newest versions into constraints.txt
	$(BIN)/python -m pip install -q uv
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --upgrade --no-annotate --no-header -q \
	  | grep -vE '^(nvidia-|cuda-|triton|httpx2-jsfetch)' | sed -E "s/ ; sys_platform != 'emscripten'//; s/^(hf-xet==[^ ]*) .*/\1/"; \
	} > constraints.new && mv constraints.new constraints.txt

clean:  ## remove what the tools left; runs/ and .venv stay
	rm -rf .pytest_cache .ruff_cache .hypothesis dist benchmarks/out
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.core: pyproject.toml constraints.txt
	@$(call install,.)
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt
	@$(call install,.[$(TEST_EXTRAS)])
	@touch $@ $(VENV)/.core

$(VENV)/.bench: pyproject.toml constraints.txt
	@$(call install,.[$(TEST_EXTRAS),bench])
	@touch $@ $(VENV)/.all $(VENV)/.core

# $(1): what to install, editable. Makes the environment first where there is none. Files are
# byte-compiled once, here: otherwise every process of the tests may compile torch's anew (3 s of its
# 5 s of import), for ever where PYTHONDONTWRITEBYTECODE is set.
define install
set -eu; \
if [ ! -x "$(BIN)/python" ]; then \
  python=""; found=""; \
  for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
    command -v "$$name" > /dev/null || continue; \
    if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
      python="$$name"; break; \
    fi; \
    found="$$found $$("$$name" -V 2>&1 || true) ($$name)"; \
  done; \
  if [ -z "$$python" ]; then \
    if [ -n "$$found" ]; then echo "vislang needs Python 3.11 or newer, but found only:$$found." >&2; \
    else echo "vislang needs Python 3.11 or newer, but found no python3 on the PATH." >&2; fi; \
    echo "Install a newer Python, or name one: make PYTHON=/path/to/python3.12 ..." >&2; \
    exit 1; \
  fi; \
  echo "Setting up $(VENV) with $$("$$python" -V); the first time takes some minutes."; \
  if command -v uv > /dev/null; then uv venv -q --python "$$(command -v "$$python")" "$(VENV)"; \
  elif ! "$$python" -m venv "$(VENV)"; then \
    rm -rf "$(VENV)"; \
    echo "$$python cannot make an environment: install its venv module (Debian: python3-venv)" \
         "or install uv." >&2; \
    exit 1; \
  fi; \
fi; \
if command -v uv > /dev/null; then \
  uv pip install -q --compile-bytecode --python "$(BIN)/python" -c constraints.txt -e "$(1)"; \
else \
  "$(BIN)/python" -m pip --version > /dev/null 2>&1 || "$(BIN)/python" -m ensurepip -q; \
  "$(BIN)/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e "$(1)"; \
fi
endef
