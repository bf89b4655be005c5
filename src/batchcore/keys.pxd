"""See `keys.pyx`."""

from batchcore.lane cimport Account, Entry, Lane
from batchcore.machine cimport Machine


cdef class Share:
    cdef Account account
    cdef object key
    cdef bint idle                  # it is in Keys.idle; guarded by the critical section of Keys


cdef class KeyLane:
    cdef Lane lane
    cdef readonly object key        # what the user calls it
    cdef readonly object layout     # what its items have in common, or None
    cdef object id                  # under which it is found
    cdef Share share                # or None
    cdef object stage               # where its form keeps rows that were copied at submit, or None; critical section


cdef class Keys:
    cdef dict lanes                 # id -> KeyLane, of those with something queued
    cdef object shares              # key -> share: a mapping, or a function; None: no shares
    cdef dict accounts              # key -> Share
    cdef object idle                # deque of the shares with nothing queued, and of some that have something again
    cdef const Machine *machine
    cdef Share share_of(self, object key)
    cdef KeyLane find(self, object key, object layout)
    cdef int leave(self, KeyLane lane) except -1
    cdef int forget(self, Share share) except -1
    cdef int release(self, Entry *entry) except -1


cdef inline object owner_of(const Lane *lane):
    """The KeyLane that a lane belongs to, to keep it alive; None for the main lane and for NULL."""
    return None if lane == NULL or lane.owner == NULL else <object>lane.owner
