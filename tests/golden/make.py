"""Write what the golden test compares with: `python tests/golden/make.py`; look at the difference before you keep it.

Legitimate after a change that is meant to decide, learn or simulate otherwise; never because a machine, a Python or a
compiler does.  To find the first of all lines that differs between two of these, compare what
`python tests/golden/make.py stories keys` prints on both: a file, and the beginning of the titles of its sections.
"""

from __future__ import annotations

import sys

from figures import FIGURES, keep

if len(sys.argv) == 1:
    for name in FIGURES:
        keep(name)
else:
    name, title = sys.argv[1:]
    for section, lines in FIGURES[name].items():
        if section.startswith(title):
            print(section, *lines(), sep="\n")
