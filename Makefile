# Every target sets up what it needs: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup demo browser test test-fast check format bench cluster-up cluster-down lock clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(READY)  ## create .venv with the pinned packages and this project

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirements requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup      ## train configs/quickstart.yaml to its end and say where to look
	$(BIN)/activelr train configs/quickstart.yaml

browser:         ## node and Chromium, in which the tests open the playground; installed where apt-get and root are there
	@have() { command -v $$1 >/dev/null; }; \
	if have node && { have chromium || have chromium-browser || have google-chrome; }; then exit 0; fi; \
	if have apt-get && [ "$$(id -u)" = 0 ]; then \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends nodejs chromium >/dev/null; } \
			|| echo "make browser: apt-get failed; the tests of the playground are skipped"; \
	else echo "make browser: install node and chromium; until then the tests of the playground are skipped"; fi

test: setup      ## the whole test suite, in two processes: the cluster's tests beside all others
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: setup ## the tests that start no Ray and take no seconds each
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not ray and not slow"

check: setup     ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup    ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup     ## measure the optimizer step and the service against plain PyTorch
	$(BIN)/python -m benchmarks

cluster-up: setup    ## start a Ray head and an MLflow server on this machine (loopback, token)
	$(BIN)/python -m cluster.local up

cluster-down: setup  ## stop exactly what cluster-up started
	$(BIN)/python -m cluster.local down

lock: setup      ## pin the newest packages that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
		--extra dev --extra export --extra lightning --extra peers --extra timm --extra train --extra transformers \
		pyproject.toml --output-file requirements.txt

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
