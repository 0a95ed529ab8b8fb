# All tasks of the project; `make` alone lists them.
#
# Each task first makes what it needs: .venv (again when pyproject.toml changes) and, for
# the tests, the real servers. Both stay inside the checkout.
#   make test PYTHON=python3.13      another interpreter
#   make test ARGS='-k fold -x'      arguments for pytest, or for the demo
#   make test ARGS='-n 0 --pdb'      one test at a time
#   make torture SHARE=0.1           fewer tries; ARGS='--only history' fewer scenes
#   make bench SIZES=10k,1M          fewer rows; ARGS='--only rhythm' fewer figures

PYTHON ?= python3
ARGS ?=
SIZES ?= 10k,1M,10M
SHARE ?= 1

# Modules instead of .venv/bin/pytest and the like: those scripts contain the path of
# their folder, so a copied checkout would run the original's code.
RUN := .venv/bin/python -m
# Named after the interpreter, so that another PYTHON makes a new environment.
INSTALLED := .venv/installed-with-$(notdir $(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help demo test drill compose-test lock audit torture bench dashboards types lint format check servers clean

help: ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r task does; do printf '  %-12s %s\n' "$$task" "$$does"; done

demo: $(INSTALLED) ## run the exporter on simulated data, with Prometheus if it is available
	@.ci/demo $(ARGS)

test: $(INSTALLED) servers ## run all tests, against both generations of the servers
	$(RUN) pytest --cov --numprocesses 3 --dist loadfile $(ARGS)

drill: $(INSTALLED) servers ## cause every fault and check who is notified, with both generations
	$(RUN) tests.drill $(ARGS)

compose-test: $(INSTALLED) ## start the compose stacks for real; as root, installs Docker
	@.ci/docker $(RUN) pytest -p no:cacheprovider tests/compose/base.py tests/compose/scale.py $(ARGS)

torture: $(INSTALLED) ## try to break every promise for a quarter of an hour, and count how often
	$(RUN) tests.torture --share $(SHARE) $(ARGS)

audit: $(INSTALLED) ## check the image's Python packages for known vulnerabilities
	@.ci/audit

bench: $(INSTALLED) ## measure speed and cost against peers and limits
	$(RUN) tests.benchmarks --sizes $(SIZES) --output data/bench/results $(ARGS)

dashboards: $(INSTALLED) ## format Grafana's dashboards, refuse broken ones
	.venv/bin/python grafana/normalise.py

types: $(INSTALLED) ## check the dashboards against Grafana's published types; needs npm
	$(RUN) tests.grafana.published_types

lock: $(INSTALLED) ## update the versions and hashes of the image's Python packages
	@.ci/lock

lint: $(INSTALLED) ## check style, formatting and types
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	.venv/bin/python grafana/normalise.py --check
	.venv/bin/hadolint exporter/packaging/Dockerfile

format: $(INSTALLED) ## format the Python code
	$(RUN) ruff check --fix-only
	$(RUN) ruff format

check: lint test ## lint and test; CI runs types and drill as well

servers: ## fetch the servers for the tests into .servers
	@.ci/servers

# Not all of data/: by default, HAK/GAL's databases are there too.
clean: ## remove what these tasks made, except databases and state file in data/
	rm -rf .venv .servers .coverage .coverage.* .hypothesis .mypy_cache \
		.pytest_cache .ruff_cache dist data/alertmanager* data/bench data/docker \
		data/inbox.log data/prometheus*
	find exporter tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml .ci/venv
	@.ci/venv $(PYTHON)
	@touch $@
