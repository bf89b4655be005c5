"""The lock of a machine; docs/cython.md says what it guards and what may be done while it is held.

With the GIL, the GIL is the lock: a section between `lock` and `unlock` runs no Python code and drops no reference, so
no other thread can come between, and taking a second lock would only cost.  Without the GIL it is a PyMutex.

BATCHCORE_CHECK_LOCKS, for builds that test, holds the sections to that: with the GIL nobody can find the lock taken
unless its section let go of the GIL, called itself, or was left by another way than its end.
"""

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
    typedef PyMutex batchcore_lock;
    #define batchcore_lock_acquire(lock) PyMutex_Lock(lock)
    #define batchcore_lock_release(lock) PyMutex_Unlock(lock)
    #elif defined(BATCHCORE_CHECK_LOCKS)
    typedef unsigned long batchcore_lock;   /* the thread that holds it; 0: none */
    static inline void batchcore_lock_acquire(batchcore_lock *lock) {
        if (*lock != 0)
            Py_FatalError("a section under the machine's lock ran Python code, called itself, or was never ended");
        *lock = PyThread_get_thread_ident();
    }
    static inline void batchcore_lock_release(batchcore_lock *lock) {
        if (*lock != PyThread_get_thread_ident())
            Py_FatalError("the machine's lock is released by a thread that does not hold it");
        *lock = 0;
    }
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
