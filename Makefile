# `make help` lists what there is. Everything runs from a bare clone with Python 3.11+.
PYTHON    ?= python3
WORKFLOWS ?= 24
SEED      ?= 7
ENVIRONMENT ?= production

# Tools of the project's own environments come first: python, node and npm of the venv, never the system's.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION = 1
CDK = node node_modules/aws-cdk/bin/cdk
CONTEXT = -c environment=$(ENVIRONMENT) $(foreach pair,$(ARGS),$(if $(findstring =,$(pair)),-c $(pair),$(error ARGS: $(pair) has no value, expected key=value)))

.DEFAULT_GOAL := help
.PHONY: help setup demo test check contract prove synth deploy destroy test-alert lint bench docs prices release lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-11s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what the other targets need (cached; they call it themselves)
	@$(PYTHON) tools/setup.py

demo: setup ## Deploy to the embedded AWS, run the agents, show the result (WORKFLOWS=24 SEED=7 KEEP=1 MODEL_URL=… MODEL=…)
	@PYTHONPATH=runtime python -m local.demo --workflows "$(WORKFLOWS)" --seed "$(SEED)" $(if $(KEEP),--keep) \
		$(if $(PORT),--port "$(PORT)") $(if $(MODEL_URL),--model-url "$(MODEL_URL)") $(if $(MODEL),--model "$(MODEL)")

test: ## Lint, types and every test at reduced size (≤ 5 minutes)
	@$(MAKE) --no-print-directory -j2 lint check

check: setup
	@python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

contract: setup ## Check what we say of AWS: on the embedded one, or in an account (ACCOUNT=123456789012)
	@python -m pytest tests/contract $(if $(ACCOUNT),--against-aws "$(ACCOUNT)")

prove: export AGENTOPS_TEST_SIZE = full
prove: check ## Every property at the size that the issues name

synth: setup ## Synthesize the templates with the CDK CLI (ENVIRONMENT=production ARGS="alert_email=me@example.com …")
	@$(CDK) synth --quiet $(CONTEXT)

deploy: setup ## Deploy to your AWS account, after checks (ENVIRONMENT=… ARGS="alert_email=me@example.com daily_budget_usd=10")
	@python tools/deploy.py deploy $(CONTEXT)

destroy: setup ## Destroy the stacks; lists what production retains and how to delete or adopt it
	@python tools/deploy.py destroy $(CONTEXT)

test-alert: setup ## Send one test alert through the deployed topic
	@python tools/deploy.py test-alert $(CONTEXT)

lint: setup ## ruff and mypy --strict
	@ruff check . && ruff format --check . && mypy .

bench: setup ## Our hot paths beside the peers', in one run
	@$(PYTHON) tools/setup.py --bench
	@python -m benchmarks

docs: setup ## Regenerate the generated documentation
	@PYTHONPATH=runtime python -m agentops_monitoring.catalogue > docs/metrics.md
	@python -m tests.contract.services > docs/contract.md

prices: setup ## Regenerate the price book and print what changed
	@PYTHONPATH=runtime python tools/generate_price_book.py
	@PYTHONPATH=runtime python tools/generate_context_windows.py

release: setup ## Build the wheel into dist/, unless its price book is older than 90 days
	@python tools/release.py

lock: ## Resolve the requirements anew and write the locks
	@$(PYTHON) tools/setup.py --lock

clean: ## Remove everything that the targets made
	@rm -rf build dist cdk.out .venv .venv-local .venv-bench .venv-agentops node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
