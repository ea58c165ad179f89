# make run, make test: each makes .venv first when needed. Nothing else has to be installed.
PYTHON ?= python3
EXPERIMENT ?= experiments/closed_loop.yaml
DURATION ?=
PYTEST ?=

BIN := .venv/bin

# Another ROS or Python installation that the shell has set up must not leak into .venv.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH ROS_DISTRO
endif

.PHONY: help run test lint setup gpu clean
.NOTPARALLEL:

help:
	@echo "make run    run an experiment  [EXPERIMENT=experiments/closed_loop.yaml] [DURATION=seconds]"
	@echo "make test   style, types and tests  [PYTEST='-k name']"
	@echo "make gpu    add CUDA JAX and Warp  [CUDA=cuda12 or cuda13]"
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

clean:
	rm -rf .venv build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
