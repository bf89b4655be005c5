"""Who runs the batches: worker threads (`batchcore.workers`, compiled) or an event loop (`pybatch.drivers.aio`)."""
