# Two commands for a new user: `make serve` and `make test`. Everything they install goes into .venv, nothing elsewhere.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: serve test check clients bench bench-pool bench-forms bench-adapters bench-train walkthrough clean
.DEFAULT_GOAL := serve

# Serves on http://127.0.0.1:8000; the first time, the default model is fetched (with a progress bar).
serve: .venv/.installed
	@exec $(BIN)/slmops serve

# Everything that a change must pass. pytest is last, so that its summary is the last line.
test: check .venv/.prometheus clients
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

check: .venv/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# The clients whose quick starts are tests, installed side by side.
clients: | $(BIN)/python
	@$(MAKE) --silent --jobs=3 .venv/.clients-openai2 .venv/.clients-openai3 .venv/.clients-node

# Side by side with other servers; each that is not installed is reported as missing. PEERS="--llama-server PATH" etc. is passed on.
bench: .venv/.installed
	@$(BIN)/python -m tests.benchmarks.compare $(PEERS)

# What the pool of models costs and withstands. PARTS="loads mixed engines kills replicas" chooses.
bench-pool: .venv/.installed
	@$(BIN)/python -m tests.benchmarks.pool $(PARTS)

# What guarantees of form cost, and whether they hold. PARTS="speed prediction tools" chooses.
bench-forms: .venv/.installed-dev
	@$(BIN)/python -m tests.benchmarks.forms $(PARTS)

# What adapters cost beside their base. OPTIONS="--rank 16 --rounds 5".
bench-adapters: .venv/.installed-dev
	@$(BIN)/python -m tests.benchmarks.adapters $(OPTIONS)

# Tuning beside a bare TRL script with the same settings, in turns.
bench-train: .venv/.installed-dev
	@$(BIN)/slmops pull smollm2-135m && $(BIN)/python -m tests.benchmarks.training $(ROUNDS)

# The whole life of a model on real data, as docs/slmops-walkthrough.md shows it. 40 to 60 minutes on two cores.
walkthrough: .venv/.installed-dev
	@$(BIN)/slmops pull smollm2-135m && $(BIN)/python -m tests.benchmarks.walkthrough $(OPTIONS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "slmops needs Python 3.11 or newer; name one with: make serve PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "installing slmops into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing slmops and its development tools into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/.installed

# Debian's prometheus, unpacked into .venv: no service is installed or started. Without it, its test is skipped and says why.
.venv/.prometheus: | $(BIN)/python
	@command -v prometheus >/dev/null || ! command -v apt-get >/dev/null || { \
	  echo "fetching Debian's prometheus into .venv (once)"; \
	  { [ "$$(id -u)" != 0 ] || apt-get update -qq; } >/dev/null 2>&1; \
	  (mkdir -p .venv/prometheus && cd .venv/prometheus && apt-get download -qq prometheus && dpkg -x prometheus_*.deb . \
	    && rm prometheus_*.deb) >/dev/null 2>&1 || echo "prometheus could not be fetched: the test that needs it will be skipped"; }
	@touch $@

# Environments of their own, because beside slmops these clients would hold its dependencies back.
.venv/.clients-openai%: tests/clients/quickstarts/requirements-openai%.txt | $(BIN)/python
	@echo "installing clients of openai $* into .venv/clients-openai$* (once)"
	@$(BIN)/python -m venv --clear .venv/clients-openai$*
	@.venv/clients-openai$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# OpenAI's client for Node. Without it, its test is skipped and says why.
.venv/.clients-node: tests/clients/quickstarts/package.json | $(BIN)/python
	@mkdir -p .venv/clients-node && cp $< .venv/clients-node
	@! command -v npm >/dev/null || { echo "installing the client for Node into .venv/clients-node (once)"; \
	  npm install --prefix .venv/clients-node --no-audit --no-fund --no-update-notifier --no-package-lock --silent \
	    || echo "the client for Node could not be fetched: the test that needs it will be skipped"; }
	@touch $@
