"""Random numbers that are the same bits on every machine, for the simulator.

xoshiro256++ seeded by splitmix64 (Blackman and Vigna, 2021), one generator for each source of chance.  Logarithm and
exponential are series of + - * / alone: those of the C library differ between machines in the last bit, and a run that
differs in one bit is another run.  `frexp`, `ldexp` and `sqrt` are exact everywhere.

Costs: some ns a number, no allocation, nothing can fail.
"""

from libc.math cimport frexp, ldexp, sqrt
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    const double LN2 "0.69314718055994530942"
    const double SQRT_HALF "0.70710678118654752440"
    const double ULP "(1.0 / 9007199254740992.0)"           # 2^-53
    const uint64_t GOLDEN "UINT64_C(0x9E3779B97F4A7C15)"    # 2^64 over the golden ratio, made odd
    const uint64_t MIX_1 "UINT64_C(0xBF58476D1CE4E5B9)"     # the finalizer of splitmix64
    const uint64_t MIX_2 "UINT64_C(0x94D049BB133111EB)"

cdef struct Random:
    uint64_t state[4]   # never all zero


cdef inline uint64_t scramble(uint64_t x) noexcept nogil:
    x = (x ^ (x >> 30)) * MIX_1
    x = (x ^ (x >> 27)) * MIX_2
    return x ^ (x >> 31)


cdef inline void random_seed(Random *random, uint64_t seed, uint64_t stream) noexcept nogil:
    """Start stream `stream` of `seed`; different streams have nothing to do with each other."""
    cdef uint64_t x = scramble(scramble(seed + GOLDEN) + stream)
    cdef int i
    for i in range(4):
        x += GOLDEN
        random.state[i] = scramble(x)


cdef inline uint64_t random_bits(Random *random) noexcept nogil:
    cdef uint64_t *s = random.state
    cdef uint64_t sum = s[0] + s[3]
    cdef uint64_t bits = ((sum << 23) | (sum >> 41)) + s[0]
    cdef uint64_t shifted = s[1] << 17
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= shifted
    s[3] = (s[3] << 45) | (s[3] >> 19)
    return bits


cdef inline double random_uniform(Random *random) noexcept nogil:
    """From 0 to 1, without 1."""
    return <double>(random_bits(random) >> 11) * ULP


cdef inline double natural_log(double x) noexcept nogil:
    """Of a positive number; right to 1e-15 of the result, or of 1 where that is more."""
    cdef int exponent
    cdef double mantissa = frexp(x, &exponent)
    cdef double s, q
    if mantissa < SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)     # log m = 2 artanh s, and |s| < 0.172
    q = s * s
    q = 1.0 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (
        1.0 / 11 + q * (1.0 / 13 + q * (1.0 / 15 + q * (1.0 / 17 + q * (1.0 / 19)))))))))
    return <double>exponent * LN2 + 2.0 * s * q


cdef inline double natural_exp(double x) noexcept nogil:
    """Of a number below 700; what is below -700 gives 0."""
    cdef double r, sum
    cdef int k, exponent
    if x < -700.0:
        return 0.0
    exponent = <int>(x / LN2 + (0.5 if x > 0.0 else -0.5))
    r = x - <double>exponent * LN2              # |r| < 0.347
    sum = 1.0
    for k in range(13, 0, -1):
        sum = 1.0 + sum * r / <double>k
    return ldexp(sum, exponent)


cdef inline double random_exponential(Random *random) noexcept nogil:
    """With mean 1."""
    return -natural_log(1.0 - random_uniform(random))


cdef inline double random_normal(Random *random) noexcept nogil:
    """With mean 0 and deviation 1 (Marsaglia's polar method)."""
    cdef double x, y, square = 0.0
    while not 0.0 < square < 1.0:
        x = 2.0 * random_uniform(random) - 1.0
        y = 2.0 * random_uniform(random) - 1.0
        square = x * x + y * y
    return x * sqrt(-2.0 * natural_log(square) / square)


cdef inline double random_gamma(Random *random, double shape) noexcept nogil:
    """With mean `shape` > 0 (Marsaglia and Tsang, 2000; a shape below 1 is had from the one above)."""
    cdef double boost = 1.0
    cdef double d, c, x, v, u
    if shape < 1.0:
        boost = natural_exp(natural_log(1.0 - random_uniform(random)) / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / sqrt(9.0 * d)
    while True:
        x = random_normal(random)
        v = 1.0 + c * x
        if v > 0.0:
            v = v * v * v
            u = 1.0 - random_uniform(random)
            if natural_log(u) < 0.5 * x * x + d - d * v + d * natural_log(v):
                return boost * d * v
