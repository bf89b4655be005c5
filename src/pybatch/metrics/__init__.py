"""What a Prometheus server can learn of the schedulers in this process.

Every scheduler shows itself in prometheus-client's default registry, or in the one given to it; nothing is registered
before the first.  All series have the label ``scheduler``, the scheduler's name, made unique as ``name-2``, ``name-3``,
... among those that a registry shows at the time.  A scheduler's series end when it is shut down or collected.

=============================================== ========= ============================================================
series                                          type      meaning
=============================================== ========= ============================================================
``pybatch_requests_total``                      counter   requests that ended, by ``outcome``
``pybatch_batches_total``                       counter   batches dispatched, by ``reason``
``pybatch_batch_size``                          histogram requests per batch
``pybatch_queue_delay_seconds``                 histogram from arrival to dispatch
``pybatch_service_seconds``                     histogram from dispatch to completion
``pybatch_queue_length``                        gauge     requests waiting
``pybatch_in_flight_batches``                   gauge     batches being computed
``pybatch_last_progress_timestamp_seconds``     gauge     unix time of the last completion; absent before the first
``pybatch_max_batch_size``                      gauge     limit in force, as are the next two
``pybatch_max_queue_size``                      gauge
``pybatch_max_concurrent_batches``              gauge
``pybatch_max_wait_seconds``                    gauge     absent if not set
``pybatch_max_latency_seconds``                 gauge     absent if not set
``pybatch_policy_info``                         info      1, with the name of the ``policy`` in force
=============================================== ========= ============================================================

Outcomes and reasons are those of `batchcore.records`; each is there from the first scrape, so that rates are too.

Under prometheus-client's multiprocess mode each process shows its own schedulers only; see `register`.
"""

from typing import TYPE_CHECKING

from pybatch.metrics.buckets import DELAY_BOUNDS_NS, MAX_BUCKETS, batch_size_bounds, exponential_buckets

if TYPE_CHECKING:
    from pybatch.metrics.collector import Source, register, unregister

__all__ = [
    "DELAY_BOUNDS_NS",
    "MAX_BUCKETS",
    "Source",
    "batch_size_bounds",
    "exponential_buckets",
    "register",
    "unregister",
]


if not TYPE_CHECKING:  # else checkers take it that every name is here

    def __getattr__(name):
        """Import the collector when first asked for: with it comes prometheus-client, and with that an HTTP server."""
        if name not in {"Source", "register", "unregister"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pybatch.metrics import collector

        globals().update(Source=collector.Source, register=collector.register, unregister=collector.unregister)
        return globals()[name]
