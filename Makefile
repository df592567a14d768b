# Two commands for a new user: `make serve` and `make test`. Everything they install goes into .venv, nothing elsewhere.
PYTHON ?= python3
BIN := .venv/bin
# The versions that were tested, of everything; pip reads the variable for build environments too.
TESTED := PIP_CONSTRAINT=constraints.txt
# A file at a time on each core, in the order of tests/tiers.py.
PYTEST := -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What one process compiles, all others read: tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-all test-newest test-portable check check-fast docs clients lock bench bench-pool bench-forms bench-adapters bench-train walkthrough clean
.DEFAULT_GOAL := serve

# Serves on http://127.0.0.1:8000; the first time, the default model is fetched (with a progress bar).
serve: .venv/.installed
	@exec $(BIN)/slmops serve

# Everything that a change must pass. pytest is last, so that its summary is the last line.
test: check .venv/.prometheus clients
	@$(BIN)/python $(PYTEST) $(TESTS)

# Every night, in hours: many more drawn cases, every crash of every trainer, the same on other machines' instruction sets.
test-all: check .venv/.prometheus clients
	@$(BIN)/python $(PYTEST) --effort thorough --timeout 7200 $(TESTS)
	@$(MAKE) test-portable

# The newest versions that pyproject.toml allows, in an environment of their own: what would fail next month fails here first.
test-newest: .venv/.prometheus clients
	@$(PYTHON) -m venv --clear .venv/newest
	@.venv/newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[dev]'
	@.venv/newest/bin/python $(PYTEST) $(TESTS)

# The suite as on other machines: PyTorch and oneDNN without AVX-512, without vector instructions, and on one core (Linux).
test-portable: .venv/.installed-dev .venv/.prometheus clients
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(BIN)/python $(PYTEST) $(TESTS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python $(PYTEST) $(TESTS)
	taskset --cpu-list 0 $(BIN)/python -m pytest $(TESTS)

check: .venv/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# After each edit, in a minute: lint, types, and the tests that start nothing.
check-fast: check
	@$(BIN)/python $(PYTEST) -m unit --effort fast $(TESTS)

# Writes the reference pages from the code, and builds the site into site/.
docs: .venv/.installed-dev
	@$(BIN)/python -m docs.generators
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The clients whose quick starts are tests, installed side by side.
clients: | $(BIN)/python
	@$(MAKE) --silent --jobs=3 .venv/.clients-openai2 .venv/.clients-openai3 .venv/.clients-node

# Renews the versions that are installed: the newest that pyproject.toml allows, for every system and Python from 3.11 on.
lock: | $(BIN)/python
	@$(PYTHON) -m venv .venv/lock && .venv/lock/bin/python -m pip install --quiet --disable-pip-version-check --upgrade uv
	@.venv/lock/bin/uv $(LOCK) --all-extras --output-file constraints.txt pyproject.toml
	@cd tests/clients/quickstarts && for client in openai2 openai3; do \
	  $(CURDIR)/.venv/lock/bin/uv $(LOCK) --output-file constraints-$$client.txt requirements-$$client.txt || exit 1; done

LOCK := pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --custom-compile-command 'make lock'

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

# The whole life of a model on real data, as docs/tune/walkthrough.md shows it. 40 to 60 minutes on two cores.
walkthrough: .venv/.installed-dev
	@$(BIN)/slmops pull smollm2-135m && $(BIN)/python -m tests.benchmarks.walkthrough $(OPTIONS)

clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "slmops needs Python 3.11 or newer; name one with: make serve PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing slmops into .venv (once)"
	@$(TESTED) $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing slmops and its development tools into .venv (once)"
	@$(TESTED) $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
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
.venv/.clients-openai%: tests/clients/quickstarts/requirements-openai%.txt tests/clients/quickstarts/constraints-openai%.txt | $(BIN)/python
	@echo "installing clients of openai $* into .venv/clients-openai$* (once)"
	@$(BIN)/python -m venv --clear .venv/clients-openai$*
	@.venv/clients-openai$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< --constraint $(word 2,$^)
	@touch $@

# OpenAI's client for Node. Without it, its test is skipped and says why.
.venv/.clients-node: tests/clients/quickstarts/package.json | $(BIN)/python
	@mkdir -p .venv/clients-node && cp $< .venv/clients-node
	@! command -v npm >/dev/null || { echo "installing the client for Node into .venv/clients-node (once)"; \
	  npm install --prefix .venv/clients-node --no-audit --no-fund --no-update-notifier --no-package-lock --silent \
	    || echo "the client for Node could not be fetched: the test that needs it will be skipped"; }
	@touch $@
