# Everything is installed into ./.venv; a fresh machine needs only make and Python >= 3.11.
PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv run test lint docs slow bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

venv: $(INSTALLED) ## create .venv and install syndistill with its references into it (once)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "syndistill needs Python 3.11 or newer: make PYTHON=python3.11 venv")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,tesseract,belief,onnx,runtime,labels,docs]'
	@touch $@

run: venv ## distil a Student from the shipped d=3 Teacher, judge it against matching; the Teacher's inside at d=5
	$(PY) -m syndistill.runs.demo
	.venv/bin/syndistill ablate inside-d5-short --out runs/inside
	.venv/bin/syndistill report runs/inside

lint: venv ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: venv ## the site of docs/, into site/ (a warning is an error)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# Two processes of one thread each; a file's tests stay together, so that they share networks and compiled kernels.
test: lint docs ## lint, the site, then every quick test
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

slow: venv ## the tests too long for `make test`
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m slow -n 2 --dist loadfile

bench: venv ## the speed measurements of benchmarks/
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(PY) "$$script"; done
