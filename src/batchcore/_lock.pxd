"""The lock of a machine.

With the GIL, the GIL is the lock: a section between `lock` and `unlock` runs no Python code and drops no reference, so
no other thread can come between, and taking a second lock would only cost.  Without the GIL it is a PyMutex.
"""

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    typedef PyMutex batchcore_lock;
    #define batchcore_lock_acquire(lock) PyMutex_Lock(lock)
    #define batchcore_lock_release(lock) PyMutex_Unlock(lock)
    #else
    typedef char batchcore_lock;
    #define batchcore_lock_acquire(lock) ((void)(lock))
    #define batchcore_lock_release(lock) ((void)(lock))
    #endif
    """
    ctypedef struct Lock "batchcore_lock":
        pass
    void lock "batchcore_lock_acquire"(Lock *) noexcept
    void unlock "batchcore_lock_release"(Lock *) noexcept
