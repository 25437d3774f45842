# Everything runs in .venv, made on first use. `make` alone lists the targets.

SHELL := bash
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STAMP := .venv/.setup-done

.PHONY: help setup tools quickstart test test-quick apk lint types schema clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the versions proved together (some minutes; 3 GB with torch's CPU build)

# One line a package: pip's own bars fill a log, and its quiet mode is silent for minutes.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing about 100 pinned packages into .venv: some minutes on the first run"
	@[ -n "$$PIP_EXTRA_INDEX_URL" ] || [ "$$(uname)" != Linux ] || \
	  echo "(set PIP_EXTRA_INDEX_URL to PyTorch's CPU index unless yours has its CPU build: else CUDA comes along, several GB)"
	@set -o pipefail; \
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[dev]" \
	  | awk '/^Collecting / { print "  " ++n, $$2; fflush() } /^Installing / { print "  installing"; fflush() }'
	@touch $@

# Half a .venv, such as Debian's python3 makes without python3.11-venv, would pass for one at the next call.
$(BIN)/python:
	@for python in python3.11 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	    echo "making .venv with $$python"; \
	    trap 'exit 130' INT; trap 'exit 143' TERM; trap 'rm -rf .venv' EXIT; \
	    $$python -m venv .venv || { \
	      echo "error: $$python -m venv fails — on Debian and Ubuntu: apt install python3.11-venv" >&2; exit 5; }; \
	    trap - EXIT; exit 0; \
	  fi; \
	done; \
	echo "error: no Python 3.11 here — install it (Debian, Ubuntu: python3.11-venv too), or put it on PATH" >&2; exit 5

# Everything works without them: the tests that need one skip and say so.
tools: setup ## Install by apt, as root, what some tests need: PostgreSQL, Chromium, Java, Android's build tools, Swift
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends postgresql chromium > /dev/null
	$(BIN)/python -m android_harness.tools.provision
	ios_harness/tools/swift.sh --provision

apk: setup ## Build the Android harness from Debian packages into out-apk/ (after `make tools`)
	$(BIN)/python -m android_harness.tools.build_apk out-apk

quickstart: setup ## The main job: build, verify and time every artefact of mobile-sam (some minutes)
	$(BIN)/edgesam-mobile quickstart -o out

# In two processes. Slow ones stay together by file, so that what a file builds serves all its tests.
test: setup ## Run every test
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

test-quick: setup ## Run the tests that need neither minutes nor a network
	$(BIN)/python -m pytest -n 2 -m "not slow and not network"

lint: setup ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types
	$(BIN)/mypy

schema: setup ## Write docs/*.schema.json anew
	$(BIN)/python -m edgesam_mobile.package.schema > docs/manifest.schema.json
	$(BIN)/python -m edgesam_mobile.lab.protocol.schema > docs/protocol.schema.json

clean: ## Remove what tools and tests leave; keeps .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
