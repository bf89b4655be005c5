"""Units and words, stated once.

Time is a signed 64-bit count of nanoseconds on whatever clock the caller keeps.  The engine only compares and adds.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    const int64_t NEVER_NS "INT64_MAX"  # an instant that does not come
    const int64_t START_NS "INT64_MIN"  # before any event

# What a request is: NEW -> QUEUED -> RUNNING -> COMPLETED | FAILED, or from QUEUED to EXPIRED | CANCELLED | SHUT_DOWN.
# docs/design.md has the table.  Everything from COMPLETED on is an end, and there is no way back from an end.
cdef enum Status:
    NEW
    QUEUED
    RUNNING
    COMPLETED
    FAILED
    EXPIRED
    CANCELLED
    SHUT_DOWN
    STATUS_COUNT

# Why a batch left; the order is that of batchcore.records.REASONS.
cdef enum Reason:
    FULL
    IDLE_WORKER
    WINDOW
    LATENCY
    DEADLINE
    GATHERED
    SPACED
    SPLIT
    PROBE
    CHOSEN
    FLUSH
    DRAIN
    REASON_COUNT

# What the engine says to an event; nothing has changed unless it is ACCEPTED or ENDED.
cdef enum Answer:
    ACCEPTED    # queued
    ENDED       # accepted, and over at once: the deadline had passed
    NO_ROOM     # max_queue_size is reached
    CLOSED      # takes no more

cdef enum Kind:
    IDLE
    WAIT
    DISPATCH
    ASK         # the user's policy has to be asked first

# What to do with a batch whose size the model does not accept.
cdef enum Fitting:
    CHEAPER     # the cheaper of both a request, by the cost model
    PAD_UP      # to the next size accepted; filler is added
    BATCH_DOWN  # to the one before; the rest stays queued

cdef enum PolicyId:
    IMMEDIATE
    FIXED
    ADAPTIVE
    CUSTOM      # the user's own, in Python
