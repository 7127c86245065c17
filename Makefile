# make demo | test: each is the first command on a machine that has Python 3.10-3.13, pip and make.

PYTHON ?= python3
PYTEST_ARGS ?=
# cuda or cpu: the build of fbgemm, chosen for good; where it never was, the driver here decides.
FBGEMM ?=
# Small batches gain nothing from more threads than this.
CORES := $(shell getconf _NPROCESSORS_ONLN)
DEMO_THREADS := $(shell [ $(CORES) -gt 8 ] && echo 8 || echo $(CORES))
# Files of tests side by side: each is of one thread, and those of several ranks wait a lot.
TEST_WORKERS := $(DEMO_THREADS)

.PHONY: help install demo study test test-slow test-gpu lint

help:  ## these lines
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/'

install: .venv/.ready  ## the environment in .venv, made or mended; nothing to do if it is ready

demo: .venv/.ready  ## both phases on a simulated market: a result table in runs/demo/
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(DEMO_THREADS)} .venv/bin/python -m apps.demo

study: .venv/.ready  ## what always holds on a small simulated market, or an error: runs/quick/study/
	rm -rf runs/quick
	.venv/bin/python -m apps.make_market --items 4000 --users 1500 --impressions 120000 \
		--searches 80 --run_dir runs/quick/market
	.venv/bin/python -m apps.embed_items --data runs/quick/market --modality text \
		--run_dir runs/quick/text
	.venv/bin/python -m apps.study --recipe quick --data runs/quick/market \
		--vectors '[runs/quick/text]' --run_dir runs/quick/study

PYTEST := .venv/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

test: .venv/.ready  ## the tests but for slow ones; says what it left out as a component is not here
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: .venv/.ready  ## the others: kills, clusters, guides, whole commands on several ranks
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-gpu: .venv/.ready  ## the tests of GPUs alone, on a host that has one
	.venv/bin/python -m pytest -m gpu -n 0 $(PYTEST_ARGS)

lint: .venv/.ready  ## ruff: rules and formatting; mypy: types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

ifneq ($(filter-out $(shell cat .venv/.fbgemm 2>/dev/null),$(FBGEMM)),)
.PHONY: .venv/.ready  # another build than the one that is there
endif

# The stamp is written last, so an install that was cut short is taken up again.
.venv/.ready: pyproject.toml torchrec_mm/install.py torchrec_mm/environment.py
	FBGEMM=$(FBGEMM) $(PYTHON) -m torchrec_mm.install
	@touch $@
