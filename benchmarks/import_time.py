"""Time what `import pybatch` adds to `import numpy`, and tell which modules take it.

The figure is the median of interpreters of their own.
"""

import argparse
import platform
import statistics
import subprocess
import sys

EPILOG = """\
examples:
  python benchmarks/import_time.py           some seconds: figures to quote
  python benchmarks/import_time.py --check   for scripts: exit status 1 if the bar is missed
"""

MOST_MS = 40.0
BOTH = "import numpy, pybatch"
TIMED = "import numpy, time; began = time.perf_counter_ns(); import pybatch; print(time.perf_counter_ns() - began)"
PARTS = ("asyncio", "batchcore", "pybatch")


def milliseconds() -> float:
    told = subprocess.run([sys.executable, "-c", TIMED], check=True, stdout=subprocess.PIPE, text=True)
    return int(told.stdout) / 1e6


def self_times() -> dict[str, float]:
    """Milliseconds of the modules of each part, as `-X importtime` counts them, and of all that came with them."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", BOTH], stderr=subprocess.PIPE, text=True, check=True
    )
    times: dict[str, float] = dict.fromkeys((*PARTS, "others of the standard library"), 0.0)
    begun = False
    for line in told.stderr.splitlines()[1:]:
        own, _, name = line.removeprefix("import time:").split("|")
        if begun:
            part = name.strip().split(".")[0]
            times[part if part in PARTS else "others of the standard library"] += int(own) / 1e3
        begun |= name == " numpy"  # indented by depth: the statement's own
    return times


def main() -> int:
    parser = argparse.ArgumentParser(
        description="What `import pybatch` adds to `import numpy`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="interpreters to ask (default: 21)")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the bar is missed")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error(f"--rounds is {chosen.rounds}; it must be at least 1")
    milliseconds()  # from here on the files are in the page cache
    found = statistics.median(milliseconds() for _ in range(chosen.rounds))
    kept = found <= MOST_MS
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    print(f"{'met   ' if kept else 'MISSED'} import pybatch, after numpy: {found:.1f} ms (at most {MOST_MS:g})\n")
    print("traced, which takes longer; ms by module:")
    print("  ".join(f"{part} {ms:.1f}" for part, ms in self_times().items()))
    return int(chosen.check and not kept)


if __name__ == "__main__":
    sys.exit(main())
