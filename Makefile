# Everything a person or a pipeline does here is one target; `make` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two installs share one environment: what it takes to run, and what it takes to work on it.
RUN    := $(VENV)/.run
DEV    := $(VENV)/.dev
DEPLOY := $(VENV)/.deploy
DRILL  := $(VENV)/.drill
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes

# `make image`: who builds, under which name, with which further words for the builder.
BUILDER     ?=
VERSION     := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' auction/__init__.py)
IMAGE       ?= auction:$(VERSION)
BUILD_FLAGS ?=
# Programs of `make test-deploy`, each called like its Debian package: for the image, then for alerts and dashboard.
TOOLS       := buildah mmdebstrap runc prometheus

# What holds the core, and takes less than a minute with its kernels interpreted.
CORE   := $(addprefix tests/test_,conformance.py refusals.py replay.py replies.py views.py json_codec.py money.py)

# The state machine of an HTTP/2 connection, and what holds it.
STATES := */wire/h2.py,*/wire/streams.py,*/wire/control.py,*/wire/outbound.py,*/wire/fields.py,*/wire/frames.py,*/wire/spending.py
WIRE   := tests/test_wire_h2.py tests/test_wire_abuse.py

.DEFAULT_GOAL := help
.PHONY: help demo run test check format bench load load-ui soak leaks wirefuzz drill interop coverage fuzz mutants proto docs lock image \
	test-deploy check-deploy test-cluster render diff deploy smoke canary promote rollback drift clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN): requirements.lock pyproject.toml
	@echo "installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.lock
	@$(PIP) -r requirements-build.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "installing what tests need ..."
	@$(PIP) -r requirements-dev.lock
	@touch $@

$(DEPLOY): $(DEV) requirements-deploy.lock
	@echo "installing what tests of the deployment need ..."
	@$(PIP) -r requirements-deploy.lock
	@touch $@

$(DRILL): $(DEV) requirements-drill.lock
	@echo "installing what drills need ..."
	@$(PIP) -r requirements-drill.lock
	@touch $@

demo: $(RUN) ## run an exchange with six bidders here, on real requests
	@$(BIN)/auction demo

run: $(RUN) ## serve with the embedded defaults: no bidders, no Redis, no cluster
	@$(BIN)/auction serve

test: $(DEV) check ## everything that must pass
	@$(BIN)/python -m pytest -n 2
	@$(MAKE) --no-print-directory coverage

check: $(DEV) ## format, lint, types, layers, generated files
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@layers=$$($(BIN)/lint-imports --no-logo) || { echo "$$layers"; exit 1; }
	@$(BIN)/python -m tests.generated --check
	@echo "check: format, lint, types, layers and generated files are in order"

coverage: $(DEV) ## branches of the core, kernels interpreted, and of the wire's states; fails below 95 % and 98 %
	@NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest -q -p no:cacheprovider $(CORE)
	@$(BIN)/coverage report --fail-under=95 --skip-covered
	@$(BIN)/coverage run --data-file=.coverage.wire --source=auction/edge/wire -m pytest -q -p no:cacheprovider $(WIRE)
	@$(BIN)/coverage report --data-file=.coverage.wire --include='$(STATES)' --fail-under=98 --skip-covered

fuzz: $(DEV) ## FUZZ auctions (20 000) of mutated requests and replies; finds stay in tests/finds
	@$(BIN)/python -m tests.fuzz --executions $(or $(FUZZ),20000)

format: $(DEV) ## let ruff format and mend
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

bench: $(DEV) ## measure; prints a table, writes benchmarks/results.json
	@$(BIN)/python -m benchmarks.bench

load: $(DEV) ## locust against the demo for 30 s, headless
	@$(BIN)/python -m benchmarks.load

load-ui: $(DEV) ## the same with locust's page on loopback
	@$(BIN)/python -m benchmarks.load --ui

soak: $(DEV) ## 10 000 auctions with misbehaving bidders, a neighbour of attacks, leaks, wirefuzz; half an hour
	@$(BIN)/python -m benchmarks.endurance $(SOAKS)

leaks: $(DEV) ## AUCTIONS (1 000 000) over the wire, one bidder in five misbehaving: nothing may be left behind
	@$(BIN)/python -m benchmarks.leaks --auctions $(or $(AUCTIONS),1000000)

wirefuzz: $(DEV) ## SECONDS (600) of arbitrary octets against the wire, guided by coverage
	@$(BIN)/python -m tests.wirefuzz --seconds $(or $(SECONDS),600)

drill: $(DRILL) ## replace, scale and kill servers under calls, through haproxy and Envoy
	@$(BIN)/python -m benchmarks.drill $(DRILLS)

interop: $(DRILL) ## the wire against grpcio, grpc-go, Envoy, ghz, h2load and h2spec; INTEROP names trials; Go programs are built here
	@$(BIN)/python -m tests.interop $(INTEROP)

mutants: $(DEV) ## small faults in money, floors and kernels: fails where tests see less than 90 %
	@$(BIN)/python -m tests.mutants

proto: $(DEV) ## generate auction/v1 from proto/
	@$(BIN)/python -m tests.generated --proto

docs: $(DEV) ## generate the tables in docs/ from what they describe
	@$(BIN)/python -m tests.generated --docs

lock: $(DEV) ## resolve the locks again
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra dev pyproject.toml -o requirements-dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.lock pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.lock --extra deploy pyproject.toml -o requirements-deploy.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.lock --extra drill pyproject.toml -o requirements-drill.lock
	@printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements-dev.lock - -o requirements-build.lock

image: ## build the image with docker, podman or buildah, whichever is here
	@builder="$(BUILDER)"; for each in docker podman buildah; do \
		test -n "$$builder" || { $$each info >/dev/null 2>&1 && builder=$$each; } || true; done; \
	test -n "$$builder" || { echo "image: expected one of docker, podman and buildah to answer, none did"; exit 1; }; \
	echo "building $(IMAGE) with $$builder ..."; \
	$$builder build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) $(BUILD_FLAGS) --tag $(IMAGE) .

# Debian's packages are the only ones that this knows; elsewhere what needs an absent tool is skipped, with the reason.
test-deploy: $(DEPLOY) ## what can be shown of the image, the chart and identities without a cluster
	@absent=$$(for tool in $(TOOLS); do command -v $$tool >/dev/null || echo $$tool; done); \
	if test -n "$$absent" && test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		echo "installing" $$absent "with apt-get ..."; \
		export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; : "in which no package starts a daemon"; \
		{ apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$absent; } >/dev/null \
			|| echo "test-deploy: not to be installed here:" $$absent; \
	fi
	@$(BIN)/python -m pytest tests/deploy

check-deploy: $(DEPLOY) ## every environment against Kubernetes' schemas, the pipeline against CircleCI's
	@$(BIN)/python -m pytest $(addprefix tests/deploy/test_,chart_schema.py environments.py pipeline.py)

test-cluster: $(DEPLOY) ## the chart on a real Kubernetes API, simulated pods; needs Go, and builds for minutes once
	@$(BIN)/python -m tests.cluster $(if $(WRITE),--write)

# ENV is an environment of deploy/helmfile.yaml; these two take all of them without one, and write files into OUT too.
render: $(DEPLOY) ## what ENV sends to its cluster
	@$(BIN)/python -m deploy.manifests render $(ENV) $(if $(OUT),--out $(OUT))

diff: $(DEPLOY) ## what is changed in ENV since revision BASE (HEAD), or since what is `released`
	@$(BIN)/python -m deploy.manifests diff $(ENV) --base $(or $(BASE),HEAD) $(if $(OUT),--out $(OUT))

deploy: $(RUN) ## bring ENV to what its files say (helmfile, helm)
	@$(BIN)/python -m deploy.rollout deploy $(ENV)

smoke: $(RUN) ## ask ENV for health and one auction (helm)
	@$(BIN)/python -m deploy.rollout smoke $(ENV)

canary: $(RUN) ## try what the files of ENV say in REPLICAS pods (1), or in WEIGHT percent of them (helm)
	@$(BIN)/python -m deploy.rollout canary $(ENV) $(if $(REPLICAS),--replicas $(REPLICAS)) $(if $(WEIGHT),--weight $(WEIGHT))

promote: $(RUN) ## bring all of ENV to what its canary tried, and end it (helm)
	@$(BIN)/python -m deploy.rollout promote $(ENV)

rollback: $(RUN) ## bring ENV back to REVISION, or to the last one without a canary (helm)
	@$(BIN)/python -m deploy.rollout rollback $(ENV) $(if $(REVISION),--revision $(REVISION))

drift: $(RUN) ## fail where ENV is not as its last release left it (helm, kubectl)
	@$(BIN)/python -m deploy.rollout drift $(ENV)

clean: ## remove the environment and everything generated locally
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
