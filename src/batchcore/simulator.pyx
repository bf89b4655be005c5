"""The simulator: an event loop in virtual time around the very machine that serves.

At each instant come first the batches that end, then the arrivals, then the decisions, until the machine has nothing
more to dispatch.  A request is a Ticket from the moment its arrival is planned; a ticket that is planned waits in
`future`, one that is submitted belongs to the machine, one that has ended is used again, so memory follows what is in
the system and not the length of the run.  An open source plans its next arrival when one has come, a client of a closed
loop when its answer has.  When requests are queued and nothing more can happen, because the policy waits for an event
that never comes, the queue is flushed.

What happened is written into two tables, one row a request and one row a batch, in order of arrival and of dispatch.
Cost: 100 to 200 ns a request besides what the policy costs, all of it without the GIL.
"""

import cython

from cpython cimport array
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from batchcore._types cimport ASK, Answer, CUSTOM, DISPATCH, ENDED, FLUSH, NEVER_NS, NO_ROOM, SHUT_DOWN, WAIT
from batchcore.arrivals cimport (
    BURSTS, CLOSED, GAMMA, MAX_CLASSES, MAX_INSTANT_NS, MMPP, Mix, POISSON, Process, Source, TRACE, burst_size,
    mix_pick, nanoseconds, return_lag_ns, source_next_ns,
)
from batchcore.custom cimport ask, tell
from batchcore.engine cimport Engine
from batchcore.decision cimport Decision, machine_decide
from batchcore.lane cimport Entry
from batchcore.machine cimport (
    Flight, Machine, machine_abandon, machine_clear, machine_complete, machine_flush, machine_reject,
    machine_submit,
)
from batchcore.queue cimport Node, Queue, queue_peek, queue_push, queue_remove
from batchcore.random cimport Random, random_exponential, random_seed, random_uniform
from batchcore.service cimport Service, service_draw_ns

cdef enum:
    MAX_SOURCES = 64
    CHUNK = 256         # tickets that are allocated at once
    SLICE = 16384       # events between two looks at signals, progress and the room in the tables

cdef enum Outcome:      # in the order of records.OUTCOMES
    COMPLETED = 0
    REJECTED = 2
    EXPIRED = 3
    PENDING = 255       # has not ended

cdef struct Ticket:
    Entry entry         # first, so that an Entry is its Ticket; while planned its Node of order is that of `future`
    Source *source
    int64_t row         # in the table of requests; valid once it has come
    int64_t trace_row   # in the columns of a TRACE
    bint leads          # an open source plans on when this one has come
    Random random       # of a client of a closed loop
    Ticket *next        # valid in the list of spare ones

cdef struct Chunk:
    Chunk *next
    Ticket tickets[CHUNK]

cdef struct Worker:
    Node node           # place in `busy`, key is the end of its batch; first, so that a Node is its Worker
    Flight flight       # what the machine knows of its batch
    Entry *batch        # chain by `later`
    int32_t id          # 0 for the first
    Worker *next        # valid in the list of idle ones

cdef struct RequestRow:
    int64_t arrival_ns
    int64_t dispatched_ns   # -1: never
    int64_t finished_ns     # -1: never
    int64_t deadline_ns     # NEVER_NS: none
    int64_t slo_ns          # instant until which an answer is good; NEVER_NS: always
    int64_t batch_of        # row in the table of batches; -1: none
    int32_t source
    uint8_t outcome

cdef struct BatchRow:
    int64_t at_ns
    int64_t size
    int64_t service_ns
    int32_t worker
    int32_t reason

# The rows as a numpy dtype with align=True is told of them.
REQUEST_FIELDS = [
    ("arrival_ns", "i8"), ("dispatched_ns", "i8"), ("finished_ns", "i8"), ("deadline_ns", "i8"), ("slo_ns", "i8"),
    ("batch_of", "i8"), ("source", "i4"), ("outcome", "u1"),
]
BATCH_FIELDS = [("at_ns", "i8"), ("size", "i8"), ("service_ns", "i8"), ("worker", "i4"), ("reason", "i4")]

cdef dict PROCESSES = {"poisson": POISSON, "gamma": GAMMA, "mmpp": MMPP, "bursts": BURSTS, "closed": CLOSED}


@cython.final
@cython.no_gc_clear         # __dealloc__ needs the engine
@cython.nonecheck(False)    # Cython cannot check `self.x += 1` without the GIL
cdef class Simulator:
    """Run one engine against sources of requests and workers that only take time.

    The compiled part of `pybatch.simulation.simulate`, which checks what it is given; use that.

    Parameters
    ----------
    engine : Engine
        A fresh one; its capacity is the number of workers.
    seed : int
        0 to 2**64 - 1.
    requests : int
        Most requests that come.
    until_ns : int
        No request comes from this instant on.

    Notes
    -----
    Not thread-safe, and good for one run.
    """

    cdef Engine engine
    cdef Machine *machine           # that of the engine
    cdef Source sources[MAX_SOURCES]
    cdef int source_count
    cdef Mix timeouts               # told to the machine
    cdef Mix slos                   # only measured
    cdef bint slo_is_timeout        # no SLOs of their own were given
    cdef Service service
    cdef uint64_t seed
    cdef int64_t limit              # most requests
    cdef int64_t until_ns
    cdef int64_t now_ns
    cdef int64_t wake_at_ns         # what the last decision announced; NEVER_NS: nothing
    cdef int64_t next_seq           # of what is planned
    cdef bint stale                 # something has happened since the last decision
    cdef Decision decision
    cdef Queue future               # tickets that are planned, by time
    cdef Queue busy                 # workers, by the end of their batches
    cdef Worker *workers            # all
    cdef Worker *idle               # those that are not busy
    cdef Ticket *spare              # tickets that are free
    cdef Chunk *chunks              # all tickets
    cdef list kept                  # views of the arrays that sources and service look into
    cdef RequestRow *request_rows   # into `requests`; valid during a slice
    cdef BatchRow *batch_rows       # into `batches`; valid during a slice
    cdef int64_t request_count
    cdef int64_t batch_count
    cdef readonly bytearray requests    # rows of REQUEST_FIELDS
    cdef readonly bytearray batches     # rows of BATCH_FIELDS

    def __cinit__(self, Engine engine not None, uint64_t seed, int64_t requests, int64_t until_ns):
        cdef int64_t i
        cdef int64_t capacity = engine.machine.config.capacity
        if engine.machine.submitted:
            raise ValueError("the engine has been used; a run needs a fresh one")
        self.workers = <Worker *>malloc(capacity * sizeof(Worker))
        if self.workers == NULL:
            raise MemoryError
        memset(self.workers, 0, capacity * sizeof(Worker))
        for i in range(capacity - 1, -1, -1):
            self.workers[i].id = <int32_t>i
            self.workers[i].next = self.idle
            self.idle = &self.workers[i]
        self.engine = engine
        self.machine = &engine.machine
        self.seed = seed
        self.limit = requests
        self.until_ns = until_ns
        self.wake_at_ns = NEVER_NS
        self.kept = []
        self.requests = bytearray()
        self.batches = bytearray()

    def __dealloc__(self):
        cdef Chunk *chunk
        cdef Worker *worker = <Worker *>queue_peek(&self.busy)
        # After a run that was broken off the machine must forget what is about to be freed.
        while worker != NULL:
            machine_abandon(self.machine, self.now_ns, &worker.flight)
            queue_remove(&self.busy, &worker.node)
            worker = <Worker *>queue_peek(&self.busy)
        if self.machine != NULL:
            machine_clear(self.machine, self.now_ns, SHUT_DOWN)
        free(self.workers)
        while self.chunks != NULL:
            chunk = self.chunks
            self.chunks = chunk.next
            free(chunk)

    def set_limits(self, timeouts, slos):
        """Give each request a timeout and an SLO: classes of (ns or None, share), one draw for both; () is none.

        Where `slos` is None the timeouts are the SLOs too, those of a trace as well.
        """
        self.slo_is_timeout = slos is None
        mix_fill(&self.timeouts, timeouts)
        mix_fill(&self.slos, timeouts if slos is None else slos)

    def set_service(
        self, array.array ns not None, *, double noise, double spike_probability, double spike_ns,
        int64_t warm_up_batches, double warm_up_factor, array.array drift_at_ns not None,
        array.array drift_factors not None,
    ):
        """Say what a batch takes: `ns` for each size from 1, and what makes it longer or shorter."""
        if len(ns) < self.machine.config.max_batch_size:
            raise ValueError(f"ns has {len(ns)} sizes; it needs {self.machine.config.max_batch_size}")
        if len(drift_at_ns) != len(drift_factors):
            raise ValueError(f"there are {len(drift_at_ns)} instants of drift and {len(drift_factors)} factors")
        self.service.ns = <const double *>self.keep(ns, "d")
        self.service.noise = noise
        self.service.spike_probability = spike_probability
        self.service.spike_ns = spike_ns
        self.service.warm_up_batches = warm_up_batches
        self.service.warm_up_factor = warm_up_factor
        self.service.drift_at_ns = <const int64_t *>self.keep(drift_at_ns, "q")
        self.service.drift_factors = <const double *>self.keep(drift_factors, "d")
        self.service.drift_count = len(drift_at_ns)
        self.service.drift_factor = 1.0
        random_seed(&self.service.random, self.seed, 0)

    def add(self, str process not None, *parameters):
        """Add a source: the name of its process and its parameters, as `arrivals.pxd` lists them."""
        cdef Source *source = self.new_source(PROCESSES[process])
        cdef Ticket *ticket
        cdef int64_t i
        if len(parameters) > 4:
            raise ValueError(f"there are {len(parameters)} parameters; no process has more than 4")
        for i, parameter in enumerate(parameters):
            source.parameters[i] = parameter
        if source.process == MMPP:
            source.phase_until_ns = nanoseconds(random_exponential(&source.random) * source.parameters[2])
        if source.process != CLOSED:
            self.plan(source)
            return
        for i in range(<int64_t>source.parameters[0]):
            ticket = self.new_ticket(source)
            random_seed(&ticket.random, self.seed, <uint64_t>self.source_count << 32 | <uint64_t>(i + 1))
            self.expect(ticket, return_lag_ns(source, &ticket.random))

    def add_trace(
        self, array.array arrivals_ns not None, array.array timeouts_ns, array.array slos_ns, array.array priorities,
    ):
        """Add a source that repeats what was recorded: sorted instants, and what is particular to each request."""
        cdef Source *source = self.new_source(TRACE)
        for column in (timeouts_ns, slos_ns, priorities):
            if column is not None and len(column) != len(arrivals_ns):
                raise ValueError(f"a column has {len(column)} rows; there are {len(arrivals_ns)} arrivals")
        source.length = len(arrivals_ns)
        source.arrivals_ns = <const int64_t *>self.keep(arrivals_ns, "q")
        source.timeouts_ns = <const int64_t *>self.keep(timeouts_ns, "q")
        source.slos_ns = <const int64_t *>self.keep(slos_ns, "q")
        source.priorities = <const int32_t *>self.keep(priorities, "i")
        self.plan(source)

    def run(self, progress=None):
        """Let everything happen; `requests` and `batches` then tell what did.

        Parameters
        ----------
        progress : callable, optional
            Called now and then with the number of requests that have come and the virtual time, ns.

        Raises
        ------
        OverflowError
            If the virtual time goes beyond 146 years.
        """
        cdef bint going = True
        if self.service.ns == NULL or self.now_ns:
            raise RuntimeError("a simulator needs a service model and is good for one run")
        while going:
            self.make_room()
            with nogil:
                going = self.advance(SLICE)
            PyErr_CheckSignals()
            if progress is not None:
                progress(self.request_count, self.now_ns)
        del self.requests[self.request_count * sizeof(RequestRow):]
        del self.batches[self.batch_count * sizeof(BatchRow):]

    cdef void *keep(self, array.array column, str typecode) except? NULL:
        """Hold an array as long as the simulator lives and return where its numbers are; None gives NULL."""
        if column is None:
            return NULL
        if column.typecode != typecode:
            raise TypeError(f"an array of type {typecode!r} is needed, not {column.typecode!r}")
        self.kept.append(memoryview(column))    # while a view exists the array cannot be resized
        return column.data.as_voidptr

    cdef int make_room(self) except -1:
        """Grow the tables so that a slice cannot fill them: an event makes at most one row."""
        cdef int64_t requests = (self.request_count + SLICE) * sizeof(RequestRow)
        cdef int64_t batches = (self.batch_count + SLICE) * sizeof(BatchRow)
        if len(self.requests) < requests:
            PyByteArray_Resize(self.requests, 2 * requests)
        if len(self.batches) < batches:
            PyByteArray_Resize(self.batches, 2 * batches)
        self.request_rows = <RequestRow *>PyByteArray_AS_STRING(self.requests)
        self.batch_rows = <BatchRow *>PyByteArray_AS_STRING(self.batches)
        return 0

    cdef Source *new_source(self, Process process) except NULL:
        cdef Source *source = &self.sources[self.source_count]
        if self.source_count == MAX_SOURCES:
            raise ValueError(f"there are more than {MAX_SOURCES} sources; merge some of them")
        source.process = process
        source.id = self.source_count
        self.source_count += 1
        random_seed(&source.random, self.seed, <uint64_t>self.source_count << 32)
        return source

    cdef Ticket *new_ticket(self, Source *source) except NULL nogil:
        cdef Chunk *chunk
        cdef Ticket *ticket
        cdef int i
        if self.spare == NULL:
            chunk = <Chunk *>malloc(sizeof(Chunk))
            if chunk == NULL:
                with gil:
                    raise MemoryError
            memset(chunk, 0, sizeof(Chunk))
            chunk.next = self.chunks
            self.chunks = chunk
            for i in range(CHUNK - 1, -1, -1):
                chunk.tickets[i].next = self.spare
                self.spare = &chunk.tickets[i]
        ticket = self.spare
        self.spare = ticket.next
        ticket.source = source
        ticket.leads = False
        return ticket

    cdef void expect(self, Ticket *ticket, int64_t at_ns) noexcept nogil:
        """Let a ticket come at `at_ns`."""
        ticket.entry.order.key = at_ns
        ticket.entry.order.seq = self.next_seq
        self.next_seq += 1
        queue_push(&self.future, &ticket.entry.order)

    cdef int plan(self, Source *source) except -1 nogil:
        """Expect the next arrival of an open source."""
        cdef int64_t at_ns = source_next_ns(source)
        cdef Ticket *ticket
        if at_ns != NEVER_NS:
            ticket = self.new_ticket(source)
            ticket.leads = True
            ticket.trace_row = source.position - 1
            self.expect(ticket, at_ns)
        return 0

    cdef int plan_burst(self, Source *source) except -1 nogil:
        """Expect what follows the first request of a burst, which comes now."""
        cdef int64_t at_ns = self.now_ns
        for _ in range(burst_size(source) - 1):
            at_ns += nanoseconds(random_exponential(&source.random) * source.parameters[3])
            self.expect(self.new_ticket(source), at_ns)
        return 0

    cdef int arrive(self, Ticket *ticket) except -1 nogil:
        cdef Source *source = ticket.source
        cdef RequestRow *row = &self.request_rows[self.request_count]
        cdef int64_t timeout_ns, slo_ns
        cdef int32_t priority = 0
        cdef double share
        cdef Answer answer
        if self.request_count == self.limit or self.now_ns >= self.until_ns:
            memset(&self.future, 0, sizeof(Queue))
            return 0
        queue_remove(&self.future, &ticket.entry.order)
        share = random_uniform(&ticket.random if source.process == CLOSED else &source.random)
        timeout_ns = mix_pick(&self.timeouts, share)
        slo_ns = mix_pick(&self.slos, share)
        if source.timeouts_ns != NULL:
            timeout_ns = source.timeouts_ns[ticket.trace_row]
        if source.slos_ns != NULL:
            slo_ns = source.slos_ns[ticket.trace_row]
        elif source.timeouts_ns != NULL and self.slo_is_timeout:
            slo_ns = timeout_ns
        if source.priorities != NULL:
            priority = source.priorities[ticket.trace_row]
        if ticket.leads:
            if source.process == BURSTS:
                self.plan_burst(source)
            self.plan(source)
        ticket.row = self.request_count
        self.request_count += 1
        row.arrival_ns = self.now_ns
        row.dispatched_ns = row.finished_ns = row.batch_of = -1
        row.deadline_ns = NEVER_NS if timeout_ns == NEVER_NS else self.now_ns + timeout_ns
        row.slo_ns = NEVER_NS if slo_ns == NEVER_NS else self.now_ns + slo_ns
        row.source = source.id
        row.outcome = <uint8_t>PENDING
        self.stale = True
        answer = machine_submit(
            self.machine, self.now_ns, &self.machine.main, &ticket.entry, row.deadline_ns, priority, 1)
        if answer == NO_ROOM:
            machine_reject(self.machine, 1)
            self.end(ticket, REJECTED)
        elif answer == ENDED:
            self.end(ticket, EXPIRED)
        return 0

    cdef void end(self, Ticket *ticket, Outcome outcome) noexcept nogil:
        """Tell a request's fate; its client, if it is one's, comes back."""
        self.request_rows[ticket.row].outcome = <uint8_t>outcome
        if ticket.source.process == CLOSED:
            self.expect(ticket, self.now_ns + return_lag_ns(ticket.source, &ticket.random))
        else:
            ticket.next = self.spare
            self.spare = ticket

    cdef int decide(self) except -1 nogil:
        cdef Worker *worker = self.idle
        # With every worker busy there is no batch, so nobody looks at the flight.
        machine_decide(self.machine, self.now_ns, &self.decision, NULL if worker == NULL else &worker.flight)
        self.expire(self.decision.expired)
        if self.decision.kind == DISPATCH:
            self.dispatch(worker)
        elif self.decision.kind == ASK:
            self.decision.expired = NULL
            with gil:
                ask(self.engine, self.engine.decider_, self.machine, &self.engine.lock, self.now_ns, &self.decision)
            self.expire(self.decision.expired)
        else:
            self.stale = False
            self.wake_at_ns = self.decision.wake_at_ns if self.decision.kind == WAIT else NEVER_NS
        return 0

    cdef void expire(self, Entry *entry) noexcept nogil:
        cdef Ticket *ticket
        while entry != NULL:
            ticket = <Ticket *>entry
            entry = entry.later
            self.end(ticket, EXPIRED)

    cdef void dispatch(self, Worker *worker) noexcept nogil:
        """Put the batch that was decided on an idle worker."""
        cdef Entry *entry = self.decision.batch
        cdef BatchRow *row = &self.batch_rows[self.batch_count]
        cdef RequestRow *request
        self.idle = worker.next
        worker.batch = entry
        row.at_ns = self.now_ns
        row.size = self.decision.batch_size
        row.service_ns = service_draw_ns(&self.service, self.now_ns, row.size)
        row.worker = worker.id
        row.reason = <int32_t>self.decision.reason
        while entry != NULL:
            request = &self.request_rows[(<Ticket *>entry).row]
            request.dispatched_ns = self.now_ns
            request.batch_of = self.batch_count
            entry = entry.later
        worker.node.key = self.now_ns + row.service_ns
        worker.node.seq = self.batch_count
        queue_push(&self.busy, &worker.node)
        self.batch_count += 1

    cdef int complete(self, Worker *worker) except -1 nogil:
        cdef Entry *entry = worker.batch
        cdef Ticket *ticket
        queue_remove(&self.busy, &worker.node)
        machine_complete(self.machine, self.now_ns, &worker.flight, 0)
        if self.machine.config.policy == CUSTOM:
            with gil:
                if self.engine.hook is not None:
                    tell(self.engine.hook, &worker.flight)
        while entry != NULL:
            ticket = <Ticket *>entry
            entry = entry.later
            self.request_rows[ticket.row].finished_ns = self.now_ns
            self.end(ticket, COMPLETED)
        worker.next = self.idle
        self.idle = worker
        self.stale = True
        return 0

    cdef bint advance(self, int64_t steps) except -1 nogil:
        """Let the next `steps` events happen; False where there are no more."""
        cdef Worker *worker
        cdef Ticket *ticket
        cdef int64_t next_ns
        while steps > 0:
            steps -= 1
            worker = <Worker *>queue_peek(&self.busy)
            ticket = <Ticket *>queue_peek(&self.future)
            if worker != NULL and worker.node.key == self.now_ns:
                self.complete(worker)
            elif ticket != NULL and ticket.entry.order.key == self.now_ns:
                self.arrive(ticket)
            elif self.stale:
                self.decide()
            else:
                next_ns = self.wake_at_ns
                if worker != NULL and worker.node.key < next_ns:
                    next_ns = worker.node.key
                if ticket != NULL and ticket.entry.order.key < next_ns:
                    next_ns = ticket.entry.order.key
                if next_ns <= MAX_INSTANT_NS:
                    self.stale = next_ns == self.wake_at_ns
                    self.now_ns = next_ns
                elif next_ns != NEVER_NS:
                    with gil:
                        raise OverflowError("the run is longer than 146 years of virtual time")
                elif self.machine.queued > 0:
                    machine_flush(self.machine, self.now_ns, FLUSH)
                    self.stale = True
                else:
                    return False
        return True


cdef int mix_fill(Mix *mix, object classes) except -1:
    cdef double upto = 0.0
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"there are {len(classes)} classes of limits; at most {MAX_CLASSES} are possible")
    mix.count = <int>len(classes)
    for i, (ns, share) in enumerate(classes):
        upto += <double>share
        mix.ns[i] = NEVER_NS if ns is None else <int64_t>ns
        mix.upto[i] = upto
    return 0
