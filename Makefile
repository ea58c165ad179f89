# make run, make test: each makes .venv first when needed. Nothing else has to be installed.
PYTHON ?= python3
EXPERIMENT ?= experiments/closed_loop.yaml
DURATION ?=
PYTEST ?=
PEER_PYTHON ?= python3.11
PEER_SECONDS ?= 60

BIN := .venv/bin

# Another ROS or Python installation that the shell has set up must not leak into .venv.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH ROS_DISTRO
endif

.PHONY: help run test lint setup gpu peers clean
.NOTPARALLEL:

help:
	@echo "make run    run an experiment  [EXPERIMENT=experiments/closed_loop.yaml] [DURATION=seconds]"
	@echo "make test   style, types and tests  [PYTEST='-k name']"
	@echo "make gpu    add CUDA JAX and Warp  [CUDA=cuda12 or cuda13]"
	@echo "make peers  others' software in the loop: environments of examples/, a session each, a table"
	@echo "            [PEER_PYTHON=python3.11] [PEER_SECONDS=60]"
	@echo "make clean  remove .venv and everything built; runs/ stays"
	@echo "All:        [PYTHON=python3.12] chooses the Python that .venv is made from"

run: setup
	@$(BIN)/myoloop run $(EXPERIMENT) $(if $(DURATION),--duration $(DURATION))

test: lint
	@$(BIN)/python -m pytest $(PYTEST)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

setup:
	@command -v $(PYTHON) >/dev/null || { echo "myoloop set-up: '$(PYTHON)' not found: install Python 3.11, 3.12 or 3.13." >&2; exit 1; }
	@$(PYTHON) .ci/setup_env.py

gpu: setup
	@$(PYTHON) .ci/setup_env.py --gpu

peers: setup
	@command -v $(PEER_PYTHON) >/dev/null || { echo "make peers: '$(PEER_PYTHON)' not found: the examples' packages were tried with Python 3.11: install it, or set PEER_PYTHON." >&2; exit 1; }
	@set -e; for list in examples/*/requirements.txt; do \
	  env=$$(dirname $$list)/.venv; echo "$$env"; \
	  test -x $$env/bin/python || $(PEER_PYTHON) -m venv $$env; \
	  $$env/bin/python -m pip install --quiet --disable-pip-version-check -r $$list; \
	done
	@$(BIN)/python benchmarks/paths.py --seconds $(PEER_SECONDS)

clean:
	rm -rf .venv build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
