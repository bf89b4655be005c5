"""For tests of what is built on pybatch: your scheduler, with your options, in a time that the test keeps.

A `SteppingScheduler` takes what `pybatch.Scheduler` takes and decides as it does, by the same engine, but has no
threads and no event loop.  Nothing happens until the test says how much time passes; then everything that falls due on
the way happens at its exact instant, on the thread of the test.  No sleeps, and no flakes.

Do two requests that come 3 ms apart share a batch, and is one that comes 10 ms later too late for it?

>>> from pybatch.testing import SteppingScheduler
>>> def test_requests_5_ms_apart_share_a_batch():
...     with SteppingScheduler(lambda xs: [x * x for x in xs], policy="fixed", max_wait_ms=5) as scheduler:
...         first = scheduler.submit(1)
...         scheduler.advance(3)
...         second = scheduler.submit(2)
...         scheduler.advance(1.999)
...         assert not first.done()
...         scheduler.advance(0.001)
...         assert (first.result(), second.result()) == (1, 4)
...         scheduler.advance(5)
...         third = scheduler.submit(3)
...         scheduler.advance(5)
...         assert third.result() == 9
...         assert [batch.items for batch in scheduler.batches] == [(1, 2), (3,)]
...         assert [(batch.at_ms, batch.reason) for batch in scheduler.batches] == [(5, "window"), (15, "window")]
>>> test_requests_5_ms_apart_share_a_batch()

A batch takes no time unless it is told to; ``service_ms`` may be a function of the batch size:

>>> with SteppingScheduler(lambda xs: xs, service_ms=lambda size: 10 + size, max_batch_size=4) as scheduler:
...     futures = scheduler.submit_many("abcdef")
...     scheduler.advance(13.999)
...     before = sum(future.done() for future in futures)
...     scheduler.advance(0.001)
...     before, sum(future.done() for future in futures)
(0, 4)

What it does not do:

- ``fn`` runs within `advance`, when its batch leaves, and what it really takes is not measured: the scheduler learns
  ``service_ms``.
- Waiting for an answer that has not come raises `WouldDeadlock` on the thread that made the scheduler, since nobody
  would let time pass meanwhile; so do ``scheduler(item)``, ``map``, and a ``submit`` that blocks.  Other threads may
  wait, in real time, until this one has advanced far enough.
- A task may await a future.  It goes on when its loop gets to it after `advance`: put ``await asyncio.sleep(0)``
  between what tasks submit, `advance`, and what they make of it.  Timeouts of asyncio and ``Future.result`` are in real
  time.
- An ``async def`` is run to its end within `advance`, and must not wait for anything: that would take real time.
"""

from pybatch.testing.stepping import Batch, ManualClock, SteppingScheduler

__all__ = ["Batch", "ManualClock", "SteppingScheduler"]
