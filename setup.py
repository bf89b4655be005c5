"""The extension list and the build switches; everything else is in pyproject.toml.

BATCHCORE_BUILD chooses the kind of build: release (default), debug (every check on), trace (line tracing, for
coverage), address or thread (that sanitizer).  BATCHCORE_WERROR=1 turns compiler warnings into errors.
"""

import os
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

MODULES = [
    "audit",
    "custom",
    "keys",
    "engine",
    "form",
    "future",
    "groups",
    "results",
    "intake",
    "dispatcher",
    "submitter",
    "workers",
    "callers",
    "loops",
    "recorder",
    "simulator",
]
WITH_NUMPY = ["assembly", "layout", "memory", "rows"]

# -ffp-contract=off: a fused multiply-add would make arm64 learn other costs, and so decide otherwise, than x86_64.
# MSVC needs no such flag: it optimizes by itself, and from Visual Studio 2022 on contracts nothing unless told to.
COMPILE = {
    "release": ["-O3"],
    "debug": ["-O0", "-g", "-DBATCHCORE_CHECK_LOCKS"],
    "trace": ["-O1", "-DCYTHON_TRACE_NOGIL=1", "-DCYTHON_USE_SYS_MONITORING=0"],
    "address": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-DBATCHCORE_CHECK_LOCKS"],
    "thread": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread", "-DBATCHCORE_CHECK_LOCKS"],
}
kind = os.environ.get("BATCHCORE_BUILD", "release")
if kind not in COMPILE:
    raise SystemExit(f"BATCHCORE_BUILD={kind!r} is not one of {', '.join(COMPILE)}")

flags = [] if os.name == "nt" else [*COMPILE[kind], "-ffp-contract=off", "-fvisibility=hidden"]
if os.environ.get("BATCHCORE_WERROR") == "1":
    flags += ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    # GCC 16 suspects a helper of Cython's; clang does not know of the suspicion.
    flags += ["-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"]

checks = kind == "debug"
# `freethreading_compatible` is claimed here, for all modules, once what docs/cython.md asks for has been seen.
directives = {
    "language_level": 3,
    "binding": True,
    "boundscheck": checks,
    "wraparound": checks,
    "initializedcheck": checks,
    "nonecheck": checks,
    "cdivision": True,
    "auto_pickle": False,
    "embedsignature": False,
    "linetrace": kind == "trace",
}

extensions = [
    Extension(
        f"batchcore.{name}",
        [f"src/batchcore/{name}.pyx"],
        include_dirs=["src/batchcore", *([numpy.get_include()] if name in WITH_NUMPY else [])],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION")] if name in WITH_NUMPY else [],
        extra_compile_args=flags,
        extra_link_args=[flag for flag in flags if flag.startswith("-fsanitize")],
    )
    for name in [*MODULES, *WITH_NUMPY]
]

NO_COMPILER = """
{error}

batchcore cannot be built here. It needs a C compiler that finds the headers of Python:

    Debian, Ubuntu    apt-get install gcc python3-dev
    Fedora, RHEL      dnf install gcc python3-devel
    Alpine            apk add gcc musl-dev python3-dev
    macOS             xcode-select --install
    Windows           Build Tools for Visual Studio, with "Desktop development with C++"

A wheel needs neither. Where there is one for this machine, this takes it: pip install --only-binary batchcore batchcore
"""


class Build(build_ext):
    """Translates to C only when it compiles, so that an sdist holds none, and only where a compiler works."""

    def build_extensions(self):
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text("#include <Python.h>\n")
            try:
                self.compiler.compile([str(probe)], output_dir=folder)
            except (CompileError, PlatformError) as error:
                raise SystemExit(NO_COMPILER.format(error=error)) from None
        # Coverage looks for the C file beside its source.
        build_dir = None if kind == "trace" else "build/cython"
        made = cythonize(self.extensions, compiler_directives=directives, build_dir=build_dir)
        for extension, translated in zip(self.extensions, made, strict=True):
            extension.sources = translated.sources
        super().build_extensions()


setup(ext_modules=extensions, cmdclass={"build_ext": Build}, options={"build_ext": {"parallel": True}})
