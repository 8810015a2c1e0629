# Chunkwire's commands, and what they are made of.
#
#   make eval     serve and evaluate a policy, on a bare machine; a task without one is trained for, on a small scale
#   make policy   make the policy of a task by its recipe: collect, convert, check, train, export, evaluate
#   make test     everything that CI runs
#
# Every finished stage is reused. `make eval` takes ENV=PushCube-v1 EPISODES=50 SEED=0 and CHECKPOINT=… to evaluate
# another one than that of checkpoints/; with DEMOS=20 or STEPS=400 it trains one. `make policy` takes TASK=pushcube,
# the name of a recipe, and DEMOS, STEPS, EPISODES and SEED in place of its own. Both hand TRAIN='--set …' to the training.
# CONTRIBUTING.md lists the smaller targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Plain assignments: a variable of the same name in the caller's environment (ENV is common) changes nothing.
ENV = StackCube-v1
EPISODES = 20
DEMOS = 20
STEPS = 400
SEED = 0
CHECKPOINT =
TRAIN =
OUT =
WORKERS = $(shell nproc)
TEST_JOBS = 2
PYTHON = python3

TASK := $(shell echo '$(ENV)' | sed 's/-v[0-9]*$$//' | tr '[:upper:]' '[:lower:]')
EXPERIMENT := pi05_maniskill_$(TASK)_small
RUN := runs/$(EXPERIMENT)/eval-$(DEMOS)-demos-$(STEPS)-steps
DEMOS_FILE := demos/$(TASK)-$(DEMOS).h5
DATASET := datasets/$(TASK)-$(DEMOS)

# A recipe has more to say about demonstrations than their number.
COLLECT = --env $(ENV) --episodes $(DEMOS)
CONVERT =
CHECK =
SETTINGS =

given = $(filter command,$(origin $(1)))
instead = $(if $(call given,$(1)),$(2) $($(1)))
TRAINED := $(RUN)/$(shell expr $(STEPS) - 1)
SHIPPED := checkpoints/$(TASK)
SHIPS := $(if $(call given,DEMOS)$(call given,STEPS),,$(wildcard $(SHIPPED)/params))
STEP := $(or $(CHECKPOINT),$(if $(SHIPS),$(SHIPPED),$(TRAINED)))
RESULTS := docs/results/$(TASK)
MEASURED := $(RUN)/$(EPISODES)-episodes-from-$(SEED)/measured

GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | head -1)
JAX_EXTRA := $(if $(GPU),jax[cuda12])
RENDER_BACKEND := $(if $(GPU),gpu,cpu)

MODEL := .venv/bin
SIM := .venv-sim/bin

# A file's tests share what is slow to make, and each process uses every core while it compiles or renders.
SIDE_BY_SIDE := --numprocesses $(TEST_JOBS) --dist loadfile

.PHONY: help setup eval policy shipped test lint test-model test-sim test-path test-containers proto fuzz tokenizer pins clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/installed .venv-sim/installed ## Make both environments and check that the simulator can render

.venv/installed: pyproject.toml docker/constraints/model.txt
	@echo '== model environment (.venv): jax, no torch'
	docker/make-environment.sh $(PYTHON) .venv docker/constraints/model.txt '.[server,train,lerobot,stack,dev]' $(JAX_EXTRA)
	# The package itself pins numpy below 2; its code runs unmodified on the numpy that is here.
	$(MODEL)/pip install --quiet --no-deps openpi-client==0.1.2
	touch $@

.venv-sim/installed: pyproject.toml docker/constraints/simulator.txt docker/install-vulkan.sh
	@echo '== simulator environment (.venv-sim): ManiSkill, no jax'
	docker/make-environment.sh $(PYTHON) .venv-sim docker/constraints/simulator.txt '.[sim,ray,test]'
	docker/install-vulkan.sh
	$(SIM)/python -m sim_client.simulator $(RENDER_BACKEND)
	touch $@

eval: setup $(if $(CHECKPOINT)$(SHIPS),,$(RUN)/trained) ## Evaluate a policy: ENV, EPISODES, SEED; CHECKPOINT, or DEMOS and STEPS to train one
	@# On so few cores one worker asks, and batches of more need not be compiled.
	echo '== evaluating $(STEP) on $(ENV), $(EPISODES) episodes'
	port=$$($(MODEL)/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	$(MODEL)/serve --checkpoint '$(STEP)' --port $$port --no-grpc $(if $(filter 1 2 3,$(WORKERS)),--batch-sizes 1) &
	server=$$!
	trap 'kill $$server 2>/dev/null || true; wait $$server 2>/dev/null || true' EXIT
	until $(MODEL)/python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$$port/readyz', timeout=5)" 2>/dev/null; do
		kill -0 $$server 2>/dev/null || { echo 'The server ended before it was ready; its message is above.' >&2; exit 1; }
		sleep 1
	done
	$(SIM)/sim-client --env $(ENV) --episodes $(EPISODES) --seed $(SEED) --server ws://127.0.0.1:$$port \
		--render-backend $(RENDER_BACKEND) $(if $(OUT),--out $(OUT) && touch $(OUT)/measured)

policy: setup ## Make a policy by its recipe: TASK=pushcube, and DEMOS, STEPS, EPISODES, SEED in place of the recipe's
	@recipe=$$($(MODEL)/train recipe '$(TASK)' $(call instead,DEMOS,--demonstrations) $(call instead,STEPS,--steps) \
		$(call instead,EPISODES,--episodes) $(call instead,SEED,--seed))
	mapfile -t variables <<<"$$recipe"
	$(MAKE) --no-print-directory shipped "$${variables[@]}"

# What a run led to stays with it: whatever was made between, its recipe ends in the same policy and results.
shipped: $(MEASURED)
	@rm -rf $(SHIPPED) $(RESULTS)
	mkdir -p $(dir $(SHIPPED)) $(RESULTS)
	cp -r $(RUN)/policy $(SHIPPED)
	cp $(<D)/episodes.jsonl $(<D)/report.md $(<D)/run.json $(RESULTS)
	head -1 $(RESULTS)/report.md
	echo 'The policy is $(SHIPPED), its results are in $(RESULTS).'

$(MEASURED): $(RUN)/exported
	@$(MAKE) --no-print-directory eval CHECKPOINT=$(RUN)/policy OUT=$(@D)

$(RUN)/exported: $(RUN)/trained
	@echo '== exporting $(TRAINED)'
	rm -rf $(RUN)/policy
	$(MODEL)/train export $(TRAINED) $(RUN)/policy
	touch $@

$(DEMOS_FILE): | setup
	@echo '== collecting demonstrations of $(ENV)'
	$(SIM)/sim-client collect $(COLLECT) --out $@ --workers $(WORKERS) --render-backend $(RENDER_BACKEND)

$(DATASET)/meta/info.json: $(DEMOS_FILE)
	@echo '== converting to a LeRobot dataset'
	$(MODEL)/train convert --overwrite $< $(DATASET) $(CONVERT)
	$(MODEL)/train check $(DATASET) $(CHECK)

$(RUN)/trained: $(DATASET)/meta/info.json
	@echo '== training $(EXPERIMENT) for $(STEPS) steps'
	# A run is gone on with when a step of it is saved and the data is what it began with.
	how=--overwrite
	if compgen -G '$(RUN)/[0-9]*/params' >/dev/null && [ '$(RUN)/run.json' -nt '$<' ]; then how=--resume; fi
	$(MODEL)/train $(EXPERIMENT) --exp-name $(notdir $(RUN)) --dataset $(DATASET) --set steps=$(STEPS) $(SETTINGS) \
		$(CHECK) $(TRAIN) $$how
	touch $@

test: lint test-model test-sim test-path ## Everything that CI runs

lint: setup ## Style, import rules, types of the contract
	$(MODEL)/ruff check .
	$(MODEL)/ruff format --check .
	$(MODEL)/lint-imports
	$(MODEL)/mypy

test-model: setup ## Tests of the contract, the model, training and the server
	$(MODEL)/pytest $(SIDE_BY_SIDE) tests/policy_protocol tests/training tests/policy_server tests/eval_stack tests/containers

test-sim: setup ## Tests of the contract and the simulator client
	$(SIM)/pytest $(SIDE_BY_SIDE) tests/policy_protocol tests/sim_client

test-path: setup ## The whole path across both environments, on a small scale
	$(MODEL)/pytest tests/whole_path

test-containers: .venv/installed ## Build the images and run the eval stack on a real Docker engine: BASE_IMAGE, WHEELS
	$(MODEL)/pytest --timeout 5400 tests/on_docker

proto: .venv-proto/installed ## Generate the gRPC stubs from policy.proto anew
	schema=policy_protocol/policy.proto
	.venv-proto/bin/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto --grpc_python_out=proto $$schema
	# A test compares this with the schema: stubs that are older than it are found out.
	digest=$$(sha256sum proto/$$schema | cut -d' ' -f1)
	sed -i "1i # Generated by 'make proto' from $$schema, sha256 $$digest." proto/policy_protocol/policy_pb2{.py,.pyi,_grpc.py}

# An environment of its own, for the oldest generator whose stubs the protobuf of both sides still loads by its rules
# (stubs of one major release before the runtime's). Raise protobuf and grpcio in pyproject.toml together with it.
.venv-proto/installed: Makefile
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install --quiet grpcio-tools==1.72.2 'protobuf<6.31' 'setuptools<81'
	touch $@

fuzz: setup ## Throw generated requests at the codec and the session for ten minutes
	CHUNKWIRE_FUZZ_SECONDS=600 $(MODEL)/pytest -s tests/policy_server/test_fuzz.py

tokenizer: setup ## Train the small tokenizer anew
	$(MODEL)/python -m training.pi05.transforms.small_tokenizer training/pi05/transforms/small_tokenizer.model

pins: ## Write what is installed now as the new pins
	for side in model:.venv simulator:.venv-sim; do
		file=docker/constraints/$${side%%:*}.txt
		{
			grep '^#' $$file
			{
				$${side##*:}/bin/pip freeze --exclude-editable | grep -v '^openpi-client' | sed 's/+cpu$$//'
				# What the images have beside it.
				[ $$side != model:.venv ] || $(MODEL)/pip install --quiet --dry-run --report - 'jax[cuda12]' '.[wandb]' |
					$(MODEL)/python -c 'import json, sys; [print("{name}=={version}".format(**each["metadata"])) for each in json.load(sys.stdin)["install"]]' |
					grep -v '^chunkwire='
			} | sort -f
		} > $$file.new
		mv $$file.new $$file
	done

clean: ## Remove what the stages made, keep the environments
	rm -rf demos datasets runs results
