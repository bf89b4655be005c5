"""Keys and the lanes of their requests.

A lane is made for the first request of a key and forgotten with the last, so keys may come and go by the thousand.
The account of a key is kept until it is level with the others again, else who comes back would not have paid.
Each queued request holds a reference to its lane.  Between looking a lane up and filling it under the engine's lock
another thread may forget it; looking up runs anybody's `__hash__` and `__eq__`, and no lock may be held for that.  Then
the key has two lanes, or two accounts, for a moment, and nothing is lost: so nothing here has to be more than nearly
exact, and what the machine counts is read without the lock.  Look-up and change go together in the critical section of
`Keys`, which is whole where keys are strings, numbers or tuples of them.
"""

cimport cython

import collections
import numbers
from collections.abc import Mapping

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.ref cimport Py_DECREF

from batchcore.lane cimport lane_open


cdef class Share:
    """The account of a key."""


cdef class KeyLane:
    """What is queued under one key."""


cdef class Keys:
    """The lanes with something queued.

    Parameters
    ----------
    shares : mapping or callable or None
        How much of the workers' time each key gets, in relation to the others: above 0; 1 for a key that is not in the
        mapping.  None: the soonest request goes first, whatever its key.
    """

    def __init__(self, shares):
        if shares is not None and not callable(shares) and not isinstance(shares, Mapping):
            raise TypeError(f"share_by_key must be a mapping from key to share, or a function of a key, not {shares!r}")
        if isinstance(shares, Mapping):
            for key, share in shares.items():
                check_share(key, share)
        self.shares = shares
        self.lanes = {}
        self.accounts = {}
        self.idle = collections.deque()

    def __len__(self):
        return len(self.lanes)

    cdef Share share_of(self, object key):
        cdef Share share
        if self.shares is None:
            return None
        share = self.accounts.get(key)
        if share is None:
            share = Share.__new__(Share)
            share.key = key
            share.account.share = check_share(
                key, self.shares.get(key, 1.0) if isinstance(self.shares, Mapping)
                else 1.0 if key is None else self.shares(key))
            share = self.accounts.setdefault(key, share)
        return share

    cdef KeyLane find(self, object key, object layout):
        """The lane of a key and a layout; None for the main one.  If it is not filled at once, call `leave`."""
        cdef KeyLane lane
        cdef object id = key
        if layout is not None:
            id = (key, layout)
        elif key is None:
            return None
        try:
            lane = self.lanes.get(id)
        except TypeError as error:
            raise TypeError(f"key must be hashable, such as a string or a tuple, not {key!r}: {error}") from None
        if lane is None:
            lane = KeyLane.__new__(KeyLane)
            lane.key = key
            lane.layout = layout
            lane.id = id
            lane.share = self.share_of(key)
            lane_open(&lane.lane, <void *>lane, NULL if lane.share is None else &lane.share.account)
            lane = self.lanes.setdefault(id, lane)
        return lane

    cdef int leave(self, KeyLane lane) except -1:
        """Forget a lane if nothing is queued in it."""
        try:
            if lane.lane.queued > 0:
                return 0
            with cython.critical_section(self):
                if self.lanes.get(lane.id) is not lane:
                    return 0
                self.lanes.pop(lane.id, None)
            if lane.share is not None:
                self.forget(lane.share)
        except BaseException as error:
            report(error, lane.key)
        return 0

    cdef int forget(self, Share share) except -1:
        """Note that a lane of a share is gone; forget two of those that are level, so that few ever linger."""
        cdef object append = self.idle.append
        cdef object popleft = self.idle.popleft
        with cython.critical_section(self):
            if not share.idle:
                share.idle = True
                append(share)
            for _ in range(min(2, len(self.idle))):
                try:
                    share = popleft()
                except IndexError:  # another thread came while a key was looked up
                    break
                share.idle = share.account.lanes == 0 and share.account.used > self.machine.level
                if share.idle:
                    append(share)
                elif share.account.lanes == 0 and self.accounts.get(share.key) is share:
                    self.accounts.pop(share.key, None)
        return 0

    cdef int release(self, Entry *entry) except -1:
        """Note that a request has left a lane that has an owner; call it once for each."""
        cdef KeyLane lane = <KeyLane>entry.lane.owner
        entry.lane = NULL
        self.leave(lane)
        Py_DECREF(lane)
        return 0


cdef int report(object error, object key) except -1:
    """Give what a key raised, though it was found once, to sys.unraisablehook: the request goes on."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(key)
    return 0


cdef double check_share(object key, object share) except -1.0:
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(f"the share of key {key!r} must be a number, not {share!r}")
    if not 1e-6 <= share <= 1e6:
        raise ValueError(f"the share of key {key!r} is {share!r}; it must be from 1e-06 to 1e+06")
    return share
