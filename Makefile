# make demo   a fresh machine: install, then a real sweep on the CPU up to a verified submission
# make test   a fresh machine: install what tests need, lint, types, the tests
# make soak   random faults on a cluster of eight nodes: MINUTES=60, SEED=0; needs root and iproute2
# make slow   the tests that take more than ten seconds each, most of them on a real Ray; they mostly wait
.DEFAULT_GOAL := help
.PHONY: help install demo test slow soak check fast lint types clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt
# An image's own torch fits its GPU driver: it is kept, and nothing but it is not pinned then.
TORCH := $(shell $(PYTHON) -c 'from importlib.metadata import version; import sys; v = version("torch").split("."); print("here" if sys.prefix == sys.base_prefix and (int(v[0]), int(v[1])) >= (2, 5) else "")' 2>/dev/null)
RUN := $(BIN)/pgolf-sweep
# Images that set it compile every module again in every command.
export PYTHONDONTWRITEBYTECODE :=
MINUTES := 60
SEED := 0

help:
	@sed -n 's/^# make/make/p' Makefile

# torch first and pinned where there is none: left to choose, pip would fetch another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgolf-sweep needs Python 3.11 or newer; name one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(if $(TORCH),--system-site-packages) $(VENV)
	grep -v '^$(if $(TORCH),torch==,never==)' constraints.txt >$(VENV)/constraints.txt
	$(if $(TORCH),true,$(PIP) torch==2.13.0)
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	# W&B's own sweep code, which the tests compare with; it asks for numpy 1 and runs with 2.
	$(PIP) --no-deps sweeps==0.3.0 jsonref==1.1.0
	@touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(RUN) data demo
	$(RUN) launch sweeps/demo.yaml
	$(RUN) promote demo --against baseline --seeds 3
	$(RUN) verify runs/demo/submission/*
	@echo
	@echo 'Next:'
	@echo '  source $(BIN)/activate'
	@echo '  pgolf-sweep trials demo                  # every trial, with the reason of each end'
	@echo '  pgolf-sweep define sweeps/mine.yaml --width 64:128:16 --lr 0.01:0.05:log --from sweeps/demo.yaml'
	@echo '  pgolf-sweep plan sweeps/baseline.yaml    # what the real contest run would cost'

test: check
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow -n 3 --dist loadfile

soak: $(VENV)/.installed-dev
	$(BIN)/python bench/launch/storm.py --minutes $(MINUTES) --seed $(SEED)

check: lint types

fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow and not ray'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy --num-workers 2

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
