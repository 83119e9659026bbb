# make run    check and time the usual backends on this machine, write a report
# make test   the whole test suite, the CUDA kernels in a simulator too
# make docs   the documentation as a site, docs/html/index.html
# make gpu    everything that takes an NVIDIA GPU
# They make .venv where there is none. PYTHON chooses the interpreter (3.11 or newer), ARGS goes to the command.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

# The real IMDB files may lie beside the project; Keras and rnnbench look in KERAS_HOME first.
ifneq ($(wildcard ../shared/data/keras),)
export KERAS_HOME ?= $(abspath ../shared/data/keras)
endif

.PHONY: run test docs browser test-sim test-keras test-compile gpu lint types smoke bench bench-against bench-gate package clean

run: .venv/run.stamp
	$(BIN)/python -m rnnbench run $(ARGS)

SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist worksteal

# `make test WHAT=tests/backends` runs a part, and neither the simulator nor Keras on its other frameworks.
WHAT ?= tests
test: .venv/dev.stamp $(if $(filter tests tests/report%,$(WHAT)),browser) $(if $(filter tests,$(WHAT)),test-sim test-keras)
	$(BIN)/python -m pytest $(WHAT) $(SIDE_BY_SIDE) $(ARGS)

# A browser for the tests of report.html, from a package of npm, which comes in one of pip: nothing is asked of the system.
# Where it cannot be had, those tests take one on the path, and are skipped where there is none.
browser: .venv/dev.stamp
	@$(MAKE) -s .venv/browser.stamp || echo "no browser could be installed" >&2

# The CUDA kernels with no GPU: numba simulates if it is told so before it is imported, so in processes of their own.
test-sim: .venv/dev.stamp
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/python -m pytest tests/cuda $(SIDE_BY_SIDE)

# Keras has one framework a process; on TensorFlow it is tested among the others.
test-keras: .venv/dev.stamp
	@$(MAKE) -j 2 -O test-keras+jax test-keras+torch

test-keras+%: .venv/dev.stamp
	$(BIN)/python -m pytest tests/backends/test_conformance.py tests/backends/test_audit.py --backend keras+$*

# The CUDA kernels compiled for GPUs that are not here, and launched over a stub of the driver, which checks every launch
# and runs nothing; the cost of launching by itself. In .venv-cuda: numba-cuda takes the place of `numba.cuda` for all
# that runs beside it, and wants a numba of its own.
OVER_STUB := .venv-cuda/bin/python -m pytest -p tests.cuda.stub
test-compile: .venv-cuda/dev.stamp
	$(OVER_STUB) tests/cuda $(SIDE_BY_SIDE) $(ARGS)
	$(OVER_STUB) benchmarks/test_launches.py --benchmark-columns=min,median,iqr,rounds $(ARGS)

# On a machine with an NVIDIA GPU: benchmarks, tests, check, sanitizer, packed after each; `python benchmarks/gpu.py --plan`
# lists the steps.
# Nothing is installed where PYTHON has the modules that they need.
GPU_MODULES := click cpuinfo jinja2 markdown_it matplotlib msgspec numba_cuda pandas PIL psutil pytest pytest_timeout rich scipy tabulate threadpoolctl
LACKING = import importlib.util as u, sys; lacking = [m for m in sys.argv[1:] if not u.find_spec(m)]; \
    sys.exit("$(PYTHON) lacks " + ", ".join(lacking) if lacking else 0)
gpu:
	@if $(PYTHON) -c '$(LACKING)' $(GPU_MODULES); then \
	    $(PYTHON) benchmarks/gpu.py $(ARGS); \
	else \
	    if $(MAKE) -sq .venv-gpu/stamp; then echo "using .venv-gpu, as it is" >&2; else \
	        echo "making .venv-gpu: about 6 GB, with PyTorch, JAX and the CUDA libraries of both" >&2; \
	        echo "for less, stop here and: $(PYTHON) -m pip install -e '.[cuda,test]'" >&2; \
	        echo "that is what is lacking alone, at most about 1 GB, most of it CUDA for Numba" >&2; \
	    fi; \
	    $(MAKE) .venv-gpu/stamp || { \
	        echo "nothing was run: with no network, bring what $(PYTHON) lacks here by other means" >&2; exit 1; }; \
	    .venv-gpu/bin/python benchmarks/gpu.py $(ARGS); \
	fi

# A link that leads nowhere, a docstring that is none, a page that no other page leads to: each is an error.
docs: .venv/docs.stamp
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -b html -d build/doctrees . docs/html $(ARGS)
	@echo "docs/html/index.html"

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp
	$(BIN)/mypy

# From the command line through to a picture.
smoke: .venv/dev.stamp
	rm -rf runs/smoke
	$(BIN)/python -m rnnbench run --quick -o runs/smoke $(ARGS)
	test -s runs/smoke/report.md
	test -s runs/smoke/report.html
	test -s runs/smoke/figures/time.png

# The benchmarks, timed and kept in .benchmarks; `make bench ARGS=--benchmark-disable` runs each once, as a test.
bench: .venv/dev.stamp
	$(BIN)/python -m pytest benchmarks --benchmark-autosave --benchmark-columns=min,median,iqr,rounds $(ARGS)

# The working tree against commit REF, taking turns: `make bench-against REF=HEAD~1 ARGS="--margin 5% -k products"`.
# It fails where a case is slower; `python benchmarks/against.py --help` lists the exit codes.
REF ?= HEAD
bench-against: .venv/dev.stamp
	$(BIN)/python benchmarks/against.py $(REF) $(ARGS)

# A minute of the same, against where this branch left main, where the CPU kernels changed; fails where a case is slower twice.
bench-gate: .venv/dev.stamp
	$(BIN)/python benchmarks/gate.py $(ARGS)

# sdist and wheel: built, looked into, installed where no repository is near, and run there.
package: .venv/dev.stamp
	$(BIN)/python .ci/package.py $(ARGS)

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/pyvenv.cfg pyproject.toml
	@echo "installing PyTorch, TensorFlow, JAX, OpenVINO and ONNX Runtime: 0.8 GB to download, 3.5 GB where PyTorch comes with CUDA" >&2
	$(BIN)/python -m pip install -q -e '.[frameworks]'
	touch $@

.venv/dev.stamp: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install -q -e '.[frameworks,dev]'
	touch $@ .venv/run.stamp

.venv/docs.stamp: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install -q -e '.[torch,docs]'
	touch $@

.venv/browser.stamp: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install -q -e '.[browser]'
	mkdir -p .venv/browser
	cd .venv/browser && export PATH="$$PWD/../bin:$$PATH" TMPDIR="$$PWD" AWS_EXECUTION_ENV=AWS_Lambda_nodejs24.x && \
	    npm install --silent --no-audit --no-fund @sparticuz/chromium@153.0.0 axe-core@4.14.1 && \
	    node --input-type=module -e "import c from '@sparticuz/chromium'; await c.executablePath()" && \
	    { LD_LIBRARY_PATH=al2023/lib ./chromium --version > /dev/null || { rm chromium; false; }; }
	touch $@

.venv-cuda/dev.stamp: pyproject.toml
	$(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/python -m pip install -q --no-compile -e '.[cuda-dev,test]'
	touch $@

.venv-gpu/stamp: pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install -q -e '.[cuda,torch,jax,test]' 'jax[cuda13]'
	touch $@

clean:
	rm -rf .venv .venv-cuda .venv-gpu build dist *.egg-info runs docs/html
