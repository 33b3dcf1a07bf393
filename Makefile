# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.icm-installed
DEV_STAMP := $(VENV)/.icm-dev-installed
DOCS_STAMP := $(VENV)/.icm-docs-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo results bench docs test test-slow test-judges test-cluster test-browser lint clean
ROWS := gender,worst_k,random_k,all_layers,cross_attention,age,skin_tone

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the environment in .venv and install the package

demo: $(STAMP)  ## run the whole method on the embedded model (gender) and print the result
	@echo "The method, on the embedded model (two to three minutes):"
	$(BIN)/python -m icm_pipeline

results: $(STAMP)  ## run every row of the README's table and print it (a quarter of an hour)
	$(BIN)/python -m icm_pipeline --multirun experiment=$(ROWS)
	$(BIN)/python benchmarks/results_table.py

bench: $(STAMP)  ## the benchmarks that fit on two cores in a quarter of an hour
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/recording.py
	$(BIN)/python benchmarks/profile_generation.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/probes.py --width 640 --layers 16 --rounds 2

docs: $(DOCS_STAMP)  ## the docs as a site in build/site, its notebook run (minutes)
	$(BIN)/python -m tools.site

test: $(DEV_STAMP)  ## lint, types, import rules and the quick tests
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/lint-imports
	@echo "$(BIN)/mypy beside $(BIN)/python -m pytest -n auto --dist worksteal"; \
	$(BIN)/mypy >$(VENV)/mypy.log 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n auto --dist worksteal; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/mypy.log; \
	exit $$((tests || types))

test-slow: $(DEV_STAMP)  ## the minutes-long tests
	$(BIN)/python -m pytest -m slow

test-judges: $(DEV_STAMP)  ## the tests of the judges that are extras: DeepFace, faces, age and gender
	@$(PYTHON) tools/install.py $(VENV) --extras deepface,faces,agegender --group judges
	$(BIN)/python -m pytest -rs tests/labelers

test-cluster: $(DEV_STAMP)  ## run the launchers on SLURM daemons (root, Debian's slurm-wlm, munge) and a Ray cluster
	@$(PYTHON) tools/install.py $(VENV) --extras slurm,ray,joblib,optuna
	$(BIN)/python -m pytest -m cluster -rs tests/cluster

test-browser: $(DEV_STAMP)  ## use the pages in a real browser (Debian's chromium, or playwright's own)
	@$(PYTHON) tools/install.py $(VENV) --extras explore --group browser
	$(BIN)/python -m pytest -m browser -rs

lint: $(DEV_STAMP)  ## format the code and mend what ruff can
	$(BIN)/ruff check --fix src tests benchmarks tools
	$(BIN)/ruff format src tests benchmarks tools

clean:  ## remove the environment and caches, keep outputs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) tools/install.py $(VENV)
	@touch $@

$(DEV_STAMP): $(STAMP)
	@$(PYTHON) tools/install.py $(VENV) --extras pretrain --group dev
	@touch $@

$(DOCS_STAMP): $(STAMP)
	@$(PYTHON) tools/install.py $(VENV) --group docs
	@touch $@
