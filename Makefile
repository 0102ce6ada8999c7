# Everything a person or CI does with this repository. `make` alone lists it.
# Paths are relative on purpose: the checkout may live under a path with spaces.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: simulate rehearse infra-validate infra-local deploy rollback smoke help setup demo test conform schema check format bench bench-table bench-stream soak lock clean FORCE

VENV   := .venv
STAMP  := $(VENV)/.stamp
BIN    := $(VENV)/bin
PEER   := .venv-peer
INFRA  := .venv-infra
LOCKS  := requirements-build.lock requirements.lock
PIP    := -m pip --disable-pip-version-check --no-input -qq
# Only `make lock` needs it, in an environment of its own.
UV_VERSION := 0.13.9
# Override on the command line: make test ARGS='-k fold'
ARGS   ?=
SEEDS  ?= 1000
# Set it to choose the interpreter; empty: the newest that works.
PYTHON ?=

# A pyenv shim can exist and yet fail, and Debian's python3 can lack ensurepip: only running it tells.
define find_python
python=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		python=$$candidate; break; \
	fi; \
done; \
if [ -z "$$python" ]; then \
	echo "make: no Python 3.11 or newer that can make environments$(if $(PYTHON), (PYTHON=$(PYTHON))). Install Python 3.11-3.13 with its venv module, or name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1; \
fi
endef

help: ## List the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r target line; do printf '  make %-12s %s\n' "$$target" "$$line"; done

setup: $(STAMP) ## Install everything, hash-checked, into .venv (gives .venv/bin/avesa)
	@:

# A checkout that was moved or copied has an environment that still points at the old place: make it anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(shell pwd))
$(STAMP): FORCE
endif

# The lock is an flock held by this shell (descriptor 9), so a second make waits, then finds the work done.
$(STAMP): $(LOCKS) pyproject.toml
	@set -eu; $(find_python); \
	exec 9>.venv.lock; "$$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'; \
	fresh=yes; [ "$$(cat $(STAMP) 2>/dev/null)" = "$$(pwd)" ] && $(BIN)/python -c '' 2>/dev/null || fresh=no; \
	if [ $$fresh = yes ] && [ -z "$$(find $(LOCKS) pyproject.toml -newer $(STAMP))" ]; then exit 0; fi; \
	echo "setup: $$("$$python" -V) -> $(VENV) (once; about a minute)"; \
	if [ $$fresh = no ]; then "$$python" -m venv --clear $(VENV); fi; \
	$(BIN)/python $(PIP) install --require-hashes -r requirements-build.lock; \
	$(BIN)/python $(PIP) install --require-hashes --no-build-isolation -r requirements.lock; \
	$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .; \
	pwd > $(STAMP)

FORCE:

demo: setup ## Whole pipeline on this machine: embedded AWS, vendor sandbox, lake compared with its source
	@$(BIN)/avesa demo $(ARGS)

test: setup ## Tests, without the markers soak and bench (ARGS='-k word' to choose)
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not soak and not bench' tests $(ARGS)

SPECS ?= $(or $(AVESA_VENDOR_SPECS),$(wildcard ../shared/vendors/specs))
conform: setup ## The integrations beside what their vendors publish of their APIs (AVESA_VENDOR_SPECS names the folder)
	@$(BIN)/avesa mapping conform $(if $(SPECS),--openapi "$(SPECS)") $(ARGS)

schema: setup ## Write mappings/schema anew, from the types that judge mapping files
	@set -eu; for kind in integration canonical; do \
		text=$$($(BIN)/avesa mapping schema $$kind); printf '%s\n' "$$text" > mappings/schema/$$kind.json; \
	done

check: setup ## Format, lint, types and import contracts; changes nothing
	@failed=; \
	$(BIN)/ruff format --quiet --check . || failed="$$failed format (make format)"; \
	$(BIN)/ruff check --quiet . || failed="$$failed lint"; \
	$(BIN)/mypy --strict --no-error-summary services tests || failed="$$failed types"; \
	report=$$($(BIN)/lint-imports --no-logo --no-cache 2>&1) || { echo "$$report"; failed="$$failed imports"; }; \
	if [ -n "$$failed" ]; then echo "check: failed:$$failed" >&2; exit 1; fi; \
	echo "check: format, lint, types and imports hold"

format: setup ## Format the code and apply the safe lint fixes
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: setup ## Pace of mapping, envelopes and fold, as ratios
	@$(BIN)/python -m pytest tests/bench/test_pace.py -m bench -s $(ARGS)

bench-table: setup ## What merging into a table of ten million versions costs (half an hour)
	@$(BIN)/python -m pytest tests/bench/test_table.py -m bench -s -o faulthandler_timeout=0 $(ARGS)

bench-stream: setup $(PEER)/.stamp ## Our stream client beside async-kinesis and a plain put_records loop (eight minutes)
	@$(BIN)/python -m pytest tests/bench/test_stream.py -m bench -s -o faulthandler_timeout=0 $(ARGS)

bench-extract: setup $(PEER)/.stamp ## The extractor beside a bare aiohttp loop and beside dlt's rest_api source (a minute)
	@$(BIN)/python -m pytest tests/bench/test_extract.py -m bench -s -o faulthandler_timeout=0 $(ARGS)

# What we compare with is no dependency of ours: an environment of its own, of the same interpreter.
$(PEER)/.stamp: tests/bench/peer.lock | setup
	@$(BIN)/python -m venv --clear $(PEER)
	@$(PEER)/bin/python $(PIP) install --require-hashes -r $<
	@touch $@

soak: setup ## Long random runs: as many sets of observations as minutes allow
	@$(BIN)/python -m pytest -q -n 2 -m soak -rP -o faulthandler_timeout=0 tests $(ARGS)

rehearse: setup ## Every service's calls to AWS, recorded, beside what its role allows (two minutes)
	@$(BIN)/python -m pytest -q tests/infra/test_permissions.py -o faulthandler_timeout=0 $(ARGS)

simulate: setup ## The whole pipeline in a simulated AWS under random faults (SEEDS=10000)
	@$(BIN)/python -m tests.simulation --seeds 0-$$(($(SEEDS) - 1)) --jobs 2 --every-row $(ARGS)

infra-local: setup ## Terraform's platform on a local emulator, the pipeline on what it created, and all of it removed
	@$(BIN)/python -m tests.infra.local

infra-validate: setup $(INFRA)/.stamp ## Terraform's own checks and tests, every environment's plan, checkov; notes it in .validated
	@$(BIN)/python -m tests.infra.validation

# What scans is no dependency of ours either.
$(INFRA)/.stamp: tests/infra/scanner.lock | setup
	@$(BIN)/python -m venv --clear $(INFRA)
	@$(INFRA)/bin/python $(PIP) install --require-hashes -r $<
	@touch $@

# -- in AWS: ENV is dev, staging or prod (infra/terraform/environments) ----------------------------------------------
deploy: setup ## Image, Terraform plan, a question, apply, avesa doctor: ENV=dev (IMAGE=, CONFIRM=yes)
	@AVESA=$(BIN)/avesa IMAGE="$(IMAGE)" CONFIRM="$(CONFIRM)" infra/bin/deploy "$(ENV)"

rollback: setup ## The image that ran before, by the same way: ENV=dev (IMAGE= chooses another)
	@set -eu; image="$(IMAGE)"; [ -n "$$image" ] || image=$$(infra/bin/previous-image "$(ENV)"); \
	AVESA=$(BIN)/avesa IMAGE="$$image" CONFIRM="$(CONFIRM)" infra/bin/deploy "$(ENV)"

smoke: setup ## One made-up record through what runs there, into the lake and out again: ENV=dev
	@set -eu; $(if $(ENV),found=$$(infra/bin/where "$(ENV)"); eval "$$found";) \
	$(BIN)/avesa smoke $(if $(ENV),--environment "$(ENV)" --region "$$region") $(ARGS)

# One resolution for all files: the smaller ones are constrained by the first.
# Pins stay as they are unless pyproject.toml asks otherwise; UPGRADE=1 takes the newest allowed.
lock: ## Resolve pyproject.toml into the lock files (UPGRADE=1 for newer versions)
	@set -eu; $(find_python); \
	[ -x .venv-lock/bin/uv ] || { "$$python" -m venv --clear .venv-lock; .venv-lock/bin/python $(PIP) install uv==$(UV_VERSION); }; \
	compile() { .venv-lock/bin/uv --quiet --no-config pip compile --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$$@"; }; \
	compile pyproject.toml --extra embedded --group dev $(if $(UPGRADE),--upgrade) -o requirements.lock; \
	compile pyproject.toml -c requirements.lock $(if $(UPGRADE),--upgrade) -o requirements-runtime.lock; \
	compile --group build -c requirements.lock $(if $(UPGRADE),--upgrade) -o requirements-build.lock; \
	compile tests/bench/peer.in -c requirements.lock $(if $(UPGRADE),--upgrade) -o tests/bench/peer.lock; \
	compile tests/infra/scanner.in $(if $(UPGRADE),--upgrade) -o tests/infra/scanner.lock

clean: ## Remove the environment, the caches and the demo's data
	@rm -rf .venv .venv-lock $(PEER) $(INFRA) .venv.lock .avesa .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	@find services tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
