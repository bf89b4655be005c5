"""The compiled core of pybatch: queue, deadlines, decision, futures and the fan-out of results.

`batchcore.engine` is a state machine that is told the time and never asks for it.  `batchcore.future`,
`batchcore.dispatcher` and `batchcore.workers` put it to work on threads.  Applications import `pybatch` instead.
"""
