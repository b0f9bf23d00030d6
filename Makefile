# `make` alone prints this list. Every target sets up what it needs; what is current is not touched.

PYTHON ?= python3
PY := .venv/bin/python
BOOTSTRAP := $(PYTHON) platform/deploy/bootstrap.py

.DEFAULT_GOAL := help
.PHONY: help up demo shell test test-long check fmt bench lock clean setup-dev setup-browser

help: ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

up: ## start everything; PORT moves the port, GALLEY_HOME the state
	@exec $(BOOTSTRAP) up

demo: ## tell the whole loop as one story, against the running stack
	@$(PY) manage.py demo_loop

shell: setup-dev ## Django's shell, with PostgreSQL and Redis up for as long as it is open
	@$(PY) -m galley.up --services-only $(PY) manage.py shell

test: setup-browser check ## set up, check and run all tests but the slow ones
	@$(PY) -m pytest -m "not slow"

test-long: setup-browser check ## the slow tests as well
	@$(PY) -m pytest

check: setup-dev ## style, types, import rules, migrations
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy .
	@.venv/bin/lint-imports
	@$(PY) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

fmt: setup-dev ## write the code in the agreed form
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: setup-dev ## every measurement; `make bench-NAME` for one
	@$(PY) -m bench

bench-%: setup-dev
	@$(PY) -m bench $*

lock: setup-dev ## choose versions again within the ranges of pyproject.toml
	@$(PY) platform/deploy/lock.py

clean: ## remove all that is made from sources, but no state
	rm -rf .venv node_modules static-build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

setup-browser:
	@$(BOOTSTRAP) dev --browser

setup-dev:
	@$(BOOTSTRAP) dev
