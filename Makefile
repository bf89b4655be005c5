# Each target sets up all that it needs, in a virtual environment of its own kind, and can be run on its own.
PYTHON ?= python3
VENV := .venv
SOURCES := $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi') setup.py pyproject.toml
PIP := -m pip --disable-pip-version-check install --quiet

.PHONY: help demo test test-torch bench bench-instructions bench-peers lint coverage sanitize sanitize-threads \
    check-free-threaded clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$@ $(PIP) --upgrade "pip>=25.1"

# One build for all: the wheel as users get it, with warnings as errors.
$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	rm -rf build
	BATCHCORE_WERROR=1 $(VENV)/bin/python $(PIP) --force-reinstall --no-deps .
	$(VENV)/bin/python $(PIP) .
	touch $@

$(VENV)/.demo: $(VENV)/.installed
	$(VENV)/bin/python $(PIP) ".[demo,tune]"
	touch $@

$(VENV)/.test $(VENV)/.bench $(VENV)/.lint: $(VENV)/.%: $(VENV)/.demo
	$(VENV)/bin/python $(PIP) --group $*
	touch $@

demo: $(VENV)/.demo  ## the main job on real input: handwritten digits, one at a time against batched
	$(VENV)/bin/pybatch demo $(ARGS)

test: $(VENV)/.test  ## the whole test suite, on the installed wheel
	$(VENV)/bin/python -m pytest $(ARGS)

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
	$(VENV)/bin/python benchmarks/scale.py --quick
	$(VENV)/bin/python -m pytest benchmarks $(ARGS)

bench-instructions: $(VENV)/.installed  ## instructions per request, against the figures in benchmarks/instructions.json
	$(VENV)/bin/python benchmarks/instructions.py $(ARGS)

# Not in CI: it downloads other projects' packages, into environments of their own (.venv-peers).
bench-peers: $(VENV)/.bench  ## this scheduler against the batchers on PyPI, into docs/peers.md
	$(VENV)/bin/python benchmarks/peers.py $(ARGS)

lint: $(VENV)/.lint $(VENV)/.test $(VENV)/.bench  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src/batchcore/*.pyx src/batchcore/*.pxd
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

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

# Special builds: of a copy, so that they do not get into each other's way.
.venv-coverage/.installed: KIND = trace
.venv-coverage/.installed: EXTRA = [demo,tune]
.venv-address/.installed: KIND = address
.venv-thread/.installed: KIND = thread
.venv-coverage/.installed .venv-address/.installed .venv-thread/.installed: .venv-%/.installed: $(SOURCES)
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	mkdir .venv-$*/tree
	cp -r src setup.py pyproject.toml README.md LICENSE .venv-$*/tree
	rm -f .venv-$*/tree/src/*/*.so
	.venv-$*/bin/python $(PIP) --upgrade "pip>=25.1" "setuptools>=77" "cython>=3.1,<4" "numpy>=2"
	BATCHCORE_BUILD=$(KIND) .venv-$*/bin/python $(PIP) --no-build-isolation --editable ".venv-$*/tree$(EXTRA)"
	.venv-$*/bin/python $(PIP) --group test
	touch $@

# Python's own allocator would hide errors from the sanitizer.
sanitize: .venv-address/.installed  ## the tests under sanitizers
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	.venv-address/bin/python -m pytest -p no:cacheprovider $(or $(ARGS),tests/assembly tests/core tests/drivers tests/test_decorator.py)

# It sees what runs without the GIL; the sections that the GIL guards are held to their rules by a check in this build.
sanitize-threads: .venv-thread/.installed  ## the tests with many threads under the sanitizer of threads
	LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" \
	TSAN_OPTIONS="halt_on_error=1 suppressions=$(CURDIR)/tests/thread_sanitizer.txt" \
	.venv-thread/bin/python -m pytest -p no:cacheprovider --capture=sys --timeout=900 $(or $(ARGS),tests/stress tests/drivers \
	    tests/assembly/test_threads.py tests/simulation/test_on_several_threads.py)

# Not in CI: no Python of Debian's has these headers.  It proves that what no test here can run is C at least.
HEADERS_OF ?= python3.13
check-free-threaded: .venv-thread/.installed  ## compiles for Python without the GIL; HEADERS_OF=python3.13 or newer
	for source in .venv-thread/tree/build/cython/src/batchcore/*.c; do \
	    gcc -fsyntax-only -Wall -Wextra -Werror -Wno-unused-parameter -DPy_GIL_DISABLED=1 -Isrc/batchcore \
	    -I"$$($(HEADERS_OF) -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
	    -I"$$(.venv-thread/bin/python -c 'import numpy; print(numpy.get_include())')" "$$source" || exit 1; \
	done

clean:  ## remove what was made
	rm -rf build dist .venv .venv-* src/*.egg-info src/batchcore/*.so src/batchcore/*.c
