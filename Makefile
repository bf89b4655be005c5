# Each target sets up all that it needs, in a virtual environment of its own kind, and can be run on its own.
PYTHON ?= python3
VENV := .venv
SOURCES := $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi') setup.py pyproject.toml
OTHERS := 3.11 3.12 3.13 3.14 oldest newest
PIP := -m pip --disable-pip-version-check install --quiet

.PHONY: help demo test $(OTHERS:%=test-%) test-arm64 test-torch test-wheels bench bench-instructions bench-peers lint \
    coverage sanitize sanitize-threads check-free-threaded wheels clean

help:  ## what there is to make
	@grep -E '^[a-z][a-z0-9. -]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$@ $(PIP) --upgrade "pip>=25.1"

# One build for all: the wheel as users get it, with warnings as errors.
$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	rm -rf build $(VENV)/wheel
	BATCHCORE_WERROR=1 $(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(VENV)/wheel .
	$(VENV)/bin/python $(PIP) --force-reinstall --no-deps $(VENV)/wheel/*.whl
	$(VENV)/bin/python $(PIP) $(VENV)/wheel/*.whl
	touch $@

$(VENV)/.demo: $(VENV)/.installed
	for wheel in $(VENV)/wheel/*.whl; do $(VENV)/bin/python $(PIP) "$$wheel[demo,tune]"; done
	touch $@

$(VENV)/.test $(VENV)/.bench $(VENV)/.lint: $(VENV)/.%: $(VENV)/.demo
	$(VENV)/bin/python $(PIP) --group $*
	touch $@

# One after the other: they install into the same place.
$(VENV)/.bench: | $(VENV)/.test
$(VENV)/.lint: | $(VENV)/.bench

demo: $(VENV)/.demo  ## the main job on real input: handwritten digits, one at a time against batched
	$(VENV)/bin/pybatch demo $(ARGS)

test: $(VENV)/.test  ## the whole test suite, on the installed wheel
	$(VENV)/bin/python -m pytest $(ARGS)

test-arm64:  ## the core, driver and metrics tests and the golden figures of the arm64 wheel, under emulation
	PYTHON=$(PYTHON) .ci/arm64

# An environment of its own: torch takes gigabytes.
.venv-torch/.installed: $(SOURCES)
	rm -rf build
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python $(PIP) --upgrade "pip>=25.1"
	.venv-torch/bin/python $(PIP) --group torch .
	.venv-torch/bin/python $(PIP) --force-reinstall --no-deps .
	touch $@

test-torch: .venv-torch/.installed  ## the tests of batches as tensors
	.venv-torch/bin/python -m pytest tests/tensors $(ARGS)

bench: $(VENV)/.bench  ## this scheduler against three written by hand
	$(VENV)/bin/python benchmarks/assembly.py
	$(VENV)/bin/python benchmarks/cpu_per_request.py
	$(VENV)/bin/python benchmarks/poisson_in_real_time.py
	$(VENV)/bin/python benchmarks/round_trip.py --quick
	$(VENV)/bin/python benchmarks/wake_ups.py --quick
	$(VENV)/bin/python benchmarks/memory.py --quick
	$(VENV)/bin/python benchmarks/import_time.py
	$(VENV)/bin/python benchmarks/scale.py --quick
	$(VENV)/bin/python -m pytest benchmarks $(ARGS)

bench-instructions: $(VENV)/.installed  ## instructions per request, against the figures in benchmarks/instructions.json
	$(VENV)/bin/python benchmarks/instructions.py $(ARGS)

# Not in CI: it downloads other projects' packages, into environments of their own (.venv-peers).
bench-peers: $(VENV)/.bench  ## this scheduler against the batchers on PyPI, into docs/peers.md
	$(VENV)/bin/python benchmarks/peers.py $(ARGS)

lint: $(VENV)/.lint $(VENV)/.test $(VENV)/.bench  ## style and types, and the workflows' safety
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src/batchcore/*.pyx src/batchcore/*.pxd
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/zizmor --quiet --offline .github

# The tracer of .pyx lines runs Python where there is none, also inside the sections that the GIL guards: it loses a
# Ctrl-C, and a storm of threads loses its wits.  Tests of those are left out, or run with the lines of .py files alone.
coverage: .venv-coverage/.installed  ## lines that the tests reach, .pyx and .pxd included
	rm -rf .venv-coverage/tree/.coverage* .venv-coverage/tree/tests
	cp -r tests .venv-coverage/tree
	cd .venv-coverage/tree && BATCHCORE_TRACED=1 ../bin/python -m coverage run -m pytest \
	    tests/assembly tests/core tests/drivers tests/metrics tests/test_decorator.py \
	    --ignore=tests/assembly/test_threads.py -k "not ctrl_c and not signal and not destructor" $(ARGS)
	cd .venv-coverage/tree && ../bin/python -m coverage run --rcfile=/dev/null --parallel-mode --source=pybatch -m pytest \
	    tests/test_cli.py tests/test_demo.py tests/test_house.py $(ARGS)
	cd .venv-coverage/tree && ../bin/python -m coverage combine --quiet
	cd .venv-coverage/tree && ../bin/python -m coverage report

# Other environments: built of a copy, so that they do not get into each other's way.
.venv-3.%/.installed: PYTHON = python$*
.venv-oldest/.installed: PYTHON = python3.11
.venv-oldest/.installed: FIRST = .ci/oldest .venv-oldest
.venv-oldest/.installed: export PIP_CONSTRAINT = .venv-oldest/run.txt
.venv-oldest/.installed: export PIP_BUILD_CONSTRAINT = .venv-oldest/build.txt
.venv-newest/.installed: PYTHON = $(shell for minor in 14 13 12 11; do \
    python3.$$minor -c "" 2>/dev/null && echo python3.$$minor && break; done)
.venv-newest/.installed: export PIP_PRE = 1
.venv-address/.installed: export BATCHCORE_BUILD = address
.venv-thread/.installed: export BATCHCORE_BUILD = thread
.venv-coverage/.installed: export BATCHCORE_BUILD = trace
.venv-coverage/.installed: FIRST = .venv-coverage/bin/python $(PIP) "setuptools>=77" "cython>=3.3,<4" "numpy>=2.0"
.venv-coverage/.installed: EDITABLE = --no-build-isolation --editable
$(OTHERS:%=.venv-%/.installed): export BATCHCORE_WERROR = 1
$(patsubst %,.venv-%/.installed,$(OTHERS) address coverage thread): .venv-%/.installed: $(SOURCES)
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	mkdir .venv-$*/tree
	cp -r src setup.py pyproject.toml README.md LICENSE .venv-$*/tree
	rm -f .venv-$*/tree/src/*/*.so
	$(FIRST)
	.venv-$*/bin/python $(PIP) --upgrade "pip>=25.3"
	.venv-$*/bin/python $(PIP) $(EDITABLE) ".venv-$*/tree[demo,tune]"
	.venv-$*/bin/python $(PIP) --group test
	touch $@

# Properties are tried with a quarter of their examples where the same code runs once more.
$(OTHERS:%=test-%) sanitize: export BATCHCORE_EXAMPLES ?= 25
$(OTHERS:%=test-%): test-%: .venv-%/.installed
	.venv-$*/bin/python -m pytest $(ARGS)

test-3.12 test-3.13 test-3.14:  ## the test suite on that Python
test-oldest:  ## the test suite with the oldest numpy, prometheus-client and Cython that we support
test-newest:  ## the test suite with the newest, pre-releases too

# Python's own allocator would hide errors from the sanitizer.
sanitize: TESTS ?= tests/assembly tests/batching tests/core tests/drivers tests/stress --ignore=tests/core/test_scale.py
sanitize: .venv-address/.installed  ## the tests under sanitizers
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	.venv-address/bin/python -m pytest -p no:cacheprovider $(TESTS) $(ARGS)

# It sees what runs without the GIL; the sections that the GIL guards are held to their rules by a check in this build.
sanitize-threads: TESTS ?= tests/stress tests/drivers tests/assembly/test_threads.py tests/simulation/test_on_several_threads.py
sanitize-threads: .venv-thread/.installed  ## the tests with many threads under the sanitizer of threads
	LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" \
	TSAN_OPTIONS="halt_on_error=1 suppressions=$(CURDIR)/tests/thread_sanitizer.txt" \
	.venv-thread/bin/python -m pytest -p no:cacheprovider --capture=sys --timeout=900 $(TESTS) $(ARGS)

# Not in CI: no Python of Debian's has these headers.  It proves that what no test here can run is C at least.
HEADERS_OF ?= python3.13
check-free-threaded: .venv-thread/.installed  ## compiles for Python without the GIL; HEADERS_OF=python3.13 or newer
	for source in .venv-thread/tree/build/cython/src/batchcore/*.c; do \
	    gcc -fsyntax-only -Wall -Wextra -Werror -Wno-unused-parameter -DPy_GIL_DISABLED=1 -Isrc/batchcore \
	    -I"$$($(HEADERS_OF) -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
	    -I"$$(.venv-thread/bin/python -c 'import numpy; print(numpy.get_include())')" "$$source" || exit 1; \
	done

.venv-wheels/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/python $(PIP) --upgrade "pip>=25.1"
	.venv-wheels/bin/python $(PIP) --group wheels
	touch $@

wheels: .venv-wheels/.installed  ## sdist and manylinux wheels into dist, for every Python at hand; ARGS=--twice compares two builds
	.venv-wheels/bin/python .ci/wheels.py $(ARGS)

test-wheels: .venv-wheels/.installed  ## the wheels in dist, installed where there is no compiler
	.venv-wheels/bin/python .ci/wheels.py --install

clean:  ## remove what was made
	rm -rf build dist .venv .venv-* src/*.egg-info src/batchcore/*.so src/batchcore/*.c
