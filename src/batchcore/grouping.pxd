"""Which requests go together where a batch is padded to its longest: neighbours in length.

Of the first ones in order of service a window of the order by length is chosen, the one that wastes the least share of
the padded batch, among those that are as large as size and limit allow and hold the first ones, which must not be
passed over.  (Where the shortest are fewer than that, all of them are such a window, too.)  The soonest is always one
of them, so nobody is passed over by more batches than are ahead of it.

O(n log n) in the requests looked at, at most GROUP_LOOK.
"""

from libc.stdint cimport int64_t

cdef enum:
    GROUP_LOOK = 256    # requests looked at


cdef inline void sort_ascending(int64_t *keys, int64_t n) noexcept nogil:
    """Shell's sort with Ciura's gaps: for some hundred numbers, without calls."""
    cdef int64_t gap = 132
    cdef int64_t key, i, j
    while gap > 0:
        for i in range(gap, n):
            key = keys[i]
            j = i
            while j >= gap and keys[j - gap] > key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap = 57 if gap == 132 else 23 if gap == 57 else 10 if gap == 23 else 4 if gap == 10 else gap // 4


cdef inline int64_t group_alike(
    const int64_t *lengths, int64_t seen, int64_t must, int64_t size, int64_t limit, bint *taken,
) noexcept nogil:
    """Mark up to `size` of the first `seen` requests, below 2**47 long, so that number times longest is within `limit`.

    The first `must`, at least 1, are among them.  Returns how many are marked; 0 if that many cannot go together, never
    with 1.
    """
    cdef int64_t order[GROUP_LOOK]      # length << 16 | index
    cdef int64_t totals[GROUP_LOOK + 1]     # of the lengths before, in that order
    cdef int64_t first = seen
    cdef int64_t last = 0
    cdef int64_t best_from = 0
    cdef int64_t best_to = 0
    cdef double best = 0.0
    cdef double share
    cdef bint best_is_short = False
    cdef bint short
    cdef int64_t i, count, longest
    for i in range(seen):
        order[i] = lengths[i] << 16 | i
        taken[i] = False
    sort_ascending(order, seen)
    size = min(size, seen)
    totals[0] = 0
    for i in range(seen):
        totals[i + 1] = totals[i] + (order[i] >> 16)
        if (order[i] & 0xFFFF) < must:
            first = min(first, i)
            last = i
    for i in range(last, seen):
        longest = max(order[i] >> 16, <int64_t>1)
        count = min(size, max(limit // longest, <int64_t>1))
        short = count > i + 1       # there are not that many as short as this one
        count = min(count, i + 1)
        if i + 1 - count > first:
            continue
        share = <double>(totals[i + 1] - totals[i + 1 - count]) / (<double>count * <double>longest)
        if short or share > best or (best_is_short and count > best_to):
            best = share
            best_is_short = short
            best_from = i + 1 - count
            best_to = i + 1
    if best_to == 0 and must == 1:
        best_from, best_to = first, first + 1
    for i in range(best_from, best_to):
        taken[order[i] & 0xFFFF] = True
    return best_to - best_from
