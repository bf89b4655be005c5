"""What is published, into dist/: one sdist, and manylinux2014 wheels for each architecture and each Python at hand.

    wheels.py            build and check
    wheels.py --twice    the same, then build again in another folder and compare the bytes
    wheels.py --install  install the wheels for this machine where there is no compiler, and run the demo

It runs on Linux, in an environment with the dependency group `wheels`.  A commit has its bytes: what would tell two
builds apart is kept out, which is files unknown to git, times, owners, modes, the flags and the glibc of the machine's
Python, and the versions of the tools, which pyproject.toml pins.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC = 17  # manylinux2014 is glibc 2.17
MOST_BYTES = 1_500_000
PIP = (sys.executable, "-m", "pip")

# Without -O zig adds its sanitizers.  -fwrapv and NDEBUG are what Python itself is built with; -s strips.
FLAGS = {"CFLAGS": "-O3 -DNDEBUG -fwrapv -g0", "LDFLAGS": "-s"}


def main(options: list[str]) -> None:
    if set(options) - {"--twice", "--install"}:
        raise SystemExit(__doc__)
    found = {version: find_python(version) for version in PYTHONS}
    for version, python in found.items():
        print(f"Python {version}: {python or 'not found on PATH or in pyenv, so no wheel for it'}", flush=True)
    pythons = {version: python for version, python in found.items() if python}
    if "--install" in options:
        install(pythons)
        return
    # All of them first: Cython makes C files anew that are older than itself.
    environments = [environment_of(version, python) for version, python in pythons.items()]
    hashes = build(environments, DIST)
    check()
    if "--twice" in options:
        with tempfile.TemporaryDirectory() as other:
            again = build(environments, Path(other))
        if again != hashes:
            raise SystemExit(f"built again, these differ: {sorted(dict(hashes.items() ^ again.items()))}")
        print("built again: the same bytes")


def find_python(version: str) -> str:
    """The interpreter of that version; asked for its name, since a shim of pyenv may lead nowhere."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in (f"python{version}", *map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}"))):
        if shutil.which(candidate):
            name = [candidate, "-c", "import sys; print(sys.executable)"]
            asked = subprocess.run(name, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                return asked.stdout.strip()
    return ""


def environment_of(version: str, python: str) -> Path:
    """An environment of that Python with what a build needs; kept."""
    environment = ROOT / f".venv-wheels-{version}"
    if not environment.exists():
        run(python, "-m", "venv", "--without-pip", environment)
    run(*PIP, "--python", environment, "install", "--group", f"{ROOT / 'pyproject.toml'}:build")
    return environment


def build(environments: list[Path], into: Path) -> dict[str, str]:
    """Make the sdist, and the wheels of what it holds; the C files are made once for all.  Say the hashes."""
    shutil.rmtree(into, ignore_errors=True)
    os.umask(0o022)
    epoch = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    with tempfile.TemporaryDirectory() as folder:
        tracked = Path(folder, "tracked")
        commit = subprocess.run(("git", "-C", ROOT, "archive", "HEAD"), stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(commit)) as archive:
            archive.extractall(tracked, filter="data")
        run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", into, tracked)
        (sdist,) = into.glob("*.tar.gz")
        repack(sdist, int(epoch))
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        for environment in environments:
            own = run(
                environment / "bin/python", "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
            )
            for architecture in ARCHITECTURES:
                compiler = f"{shlex.quote(sys.executable)} -m ziglang cc -target {architecture}-linux-gnu.2.{GLIBC}"
                cross = {
                    "CC": compiler,
                    "LDSHARED": f"{compiler} -shared",
                    "SETUPTOOLS_EXT_SUFFIX": own.strip().replace(platform.machine(), architecture),
                    "_PYTHON_HOST_PLATFORM": f"manylinux2014_{architecture}",
                    "SOURCE_DATE_EPOCH": epoch,
                    "ZIG_GLOBAL_CACHE_DIR": f"{folder}/zig",
                }
                source = Path(folder, sdist.name.removesuffix(".tar.gz"))
                wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", into, source)
                run(*PIP, "--python", environment, *wheel, env=os.environ | cross | FLAGS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in into.iterdir()}


def repack(sdist: Path, epoch: int) -> None:
    """Write the archive anew: in order, of one time, nobody's, for all to read."""
    packed = io.BytesIO()
    with tarfile.open(sdist) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, epoch
            plain.mode = 0o755 if member.isdir() else 0o644
            new.addfile(plain, old.extractfile(member))
    sdist.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


def check() -> None:
    """Ask three judges whether the files are what they say, then print them."""
    wheels, files = sorted(DIST.glob("*.whl")), sorted(DIST.iterdir())
    for wheel in wheels:
        shown = run(sys.executable, "-m", "auditwheel", "show", wheel)
        tag = re.search(r'platform\s+tag:\s+"manylinux_2_(\d+)_(\w+)"', shown)
        if not tag or int(tag[1]) > GLIBC or not wheel.stem.endswith(f"-manylinux2014_{tag[2]}"):
            raise SystemExit(f"{wheel.name} is not what its name says:\n{shown}")
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    run(sys.executable, "-m", "check_wheel_contents", "--config", ROOT / "pyproject.toml", *wheels)
    print("auditwheel, twine and check-wheel-contents agree:")
    for path in files:
        print(f"{path.stat().st_size:10,} bytes  {path.name}", flush=True)
        if path.stat().st_size > MOST_BYTES:
            raise SystemExit(f"more than {MOST_BYTES:,} bytes")


def install(pythons: dict[str, str]) -> None:
    """Install each wheel for this machine in an environment whose PATH holds nothing else, and run the demo."""
    for version, python in pythons.items():
        (wheel,) = DIST.glob(f"*-cp{version.replace('.', '')}-manylinux2014_{platform.machine()}.whl")
        with tempfile.TemporaryDirectory() as folder:
            run(python, "-m", "venv", folder)
            bare = {name: value for name, value in os.environ.items() if name not in {"CC", "PYTHONPATH"}}
            bare["PATH"] = f"{folder}/bin"
            run(f"{folder}/bin/pip", "install", f"{wheel}[demo]", env=bare)
            demo = run(f"{folder}/bin/pybatch", "demo", "--duration", "1", env=bare)
        answers = next(line for line in demo.splitlines() if line.startswith("every answer checked"))
        print(f"{wheel.name}: {answers}", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """What the command prints; if it fails, that is the last thing said."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\nfailed: {shlex.join(map(str, command))}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
