"""The subcommands of ``pybatch``, a module each: what it accepts and explains.  Imports what it needs when run."""
