/* The RoI operators on channels-last maps of a CPU, and their gradients. `compiled.py` builds this file,
   which includes `compiled_sum.c` (RoIAlign, RoIWarp, position-sensitive pooling), `compiled_max.c` (RoIPool) and
   `transpose.c` (changes of layout).

   REAL     float or double, set when the file is built: what sums and gradients of maps are taken in
   stored   what maps, pooled features and their gradients are kept in: REAL, or half as many bytes (see below)
   out      [K, P, Q, C], the pooled features; grad their gradient
   plane    [K], the map of the image and level that each RoI lies on, [its height, width, C * parts * parts], as an
            address; for gradients what is to be added to
   width    [K], its width
   line     [K], its first row's number among all rows of all maps
   owner    [lines], zeros: room to note which thread writes each row of the maps
   threads  how many may work

   Forward, threads share out the bins; backward, the rows of the maps. No two write the same number, and each sum is
   taken in the order of RoIs and bins, so that the number of threads changes no bit. */

#include <float.h>
#include <math.h>
#include <stdint.h>

struct size {
    int64_t K, P, Q, C, lines;
    int64_t M, N;  /* how many rows and columns of the map a bin is given */
    int64_t parts; /* along either axis, for position-sensitive sums: each reads every parts * parts-th channel */
};

/* As many bytes of numbers as a register of this machine holds: GCC 12 makes code of wider vectors that is 4 to 20 times
   as slow. A block of four is summed at a time. */
#if defined WIDTH /* a test sets it */
#elif defined __AVX512F__
#define WIDTH 64
#elif defined __AVX2__
#define WIDTH 32
#else
#define WIDTH 16
#endif
typedef REAL vector __attribute__((vector_size(WIDTH), aligned(sizeof(REAL))));
#define UNROLLED _Pragma("GCC unroll 4") /* of a loop over a block: else GCC 12 may keep the block in memory */
enum { VECTORS = 4, LANES = WIDTH / sizeof(REAL), BLOCK = VECTORS * LANES };

/* As many whole numbers, wide for work and comparisons, or of 16 bits in memory. */
typedef __typeof__(__builtin_choose_expr(sizeof(REAL) == 4, (int32_t)0, (int64_t)0)) integer;
typedef integer integers __attribute__((vector_size(WIDTH), aligned(sizeof(REAL))));
typedef uint16_t shorts __attribute__((vector_size(2 * WIDTH / sizeof(REAL)), aligned(2)));

/* What is kept in half the bytes is read exactly, and rounded once, to the nearest and halves to even. */
#if defined BFLOAT16
typedef uint16_t stored; /* the upper half of a float */
#elif defined FLOAT16
typedef _Float16 stored;
#else
typedef REAL stored;
#endif

#ifdef BFLOAT16
static inline REAL load_one(const stored *from)
{
    return ((union { uint32_t bits; float value; }){(uint32_t)*from << 16}).value;
}

static inline void store_one(stored *to, REAL value)
{
    const uint32_t bits = ((union { float value; uint32_t bits; }){value}).bits;
    *to = (value != value ? 0x7fc00000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#else
static inline REAL load_one(const stored *from)
{
    return *from;
}

static inline void store_one(stored *to, REAL value)
{
    *to = value;
}
#endif

/* A block in registers. Of half the bytes, two numbers share a word, and come into vectors of their own: taking words
   apart is quicker than to widen them in order. `store_places` is `store` for numbers of cells. */
#if defined BFLOAT16 || defined FLOAT16
typedef uint32_t words __attribute__((vector_size(WIDTH), aligned(2)));

#ifdef BFLOAT16
static inline vector float_of(words half)
{
    return (vector)(half << 16);
}
#else
static inline vector float_of(words half)
{
    const words size = (half & 0x7fff) << 13, endless = (words)((half & 0x7c00) == 0x7c00) & 0x7f800000;
    const words finite = (words)((vector)size * 0x1p112f); /* exponents of a float are larger by 112 */
    return (vector)(finite | endless | (half & 0x8000) << 16);
}
#endif

static inline void load(vector *values, const stored *from)
{
    UNROLLED
    for (int v = 0; v < VECTORS; v += 2) {
        const words word = ((const words *)from)[v / 2];
        values[v] = float_of(word & 0xffff);
        values[v + 1] = float_of(word >> 16);
    }
}

#ifdef BFLOAT16
static inline words rounded(vector values)
{
    const words word = (words)values, nan = (words)(values != values);
    return (nan & 0x7fc00000) | (~nan & (word + 0x7fff + (word >> 16 & 1)));
}

static inline void store(stored *to, const vector *values)
{
    UNROLLED
    for (int v = 0; v < VECTORS; v += 2)
        ((words *)to)[v / 2] = rounded(values[v]) >> 16 | (rounded(values[v + 1]) & 0xffff0000);
}
#else
static inline void store(stored *to, const vector *values)
{
    for (int c = 0; c < BLOCK; c++)
        store_one(to + c, values[c / (2 * LANES) * 2 + c % 2][c % (2 * LANES) / 2]);
}
#endif

static inline void store_places(uint16_t *to, const integers *places)
{
    UNROLLED
    for (int v = 0; v < VECTORS; v += 2)
        ((words *)to)[v / 2] = ((words)places[v] & 0xffff) | (words)places[v + 1] << 16;
}
#else
static inline void load(vector *values, const stored *from)
{
    UNROLLED
    for (int v = 0; v < VECTORS; v++)
        values[v] = ((const vector *)from)[v];
}

static inline void store(stored *to, const vector *values)
{
    UNROLLED
    for (int v = 0; v < VECTORS; v++)
        ((vector *)to)[v] = values[v];
}

static inline void store_places(uint16_t *to, const integers *places)
{
    UNROLLED
    for (int v = 0; v < VECTORS; v++)
        ((shorts *)to)[v] = __builtin_convertvector(places[v], shorts);
}
#endif

static inline vector load_in_order(const stored *from)
{
    vector values;
    for (int i = 0; i < LANES; i++)
        values[i] = load_one(from + i);
    return values;
}

enum { SMALL = 1 << 14 }; /* outputs that one thread makes before a second has begun */

/* Loops over RoIs k and their bins (p, q), here by one thread or by all: nested, for dividing a bin's number would take
   longer than pooling a small bin. */
#define EACH_BIN                                                                                                       \
    for (int64_t k = 0; k < s.K; k++)                                                                                  \
        for (int64_t p = 0; p < s.P; p++)                                                                              \
            for (int64_t q = 0; q < s.Q; q++)
#define BINS_AMONG_THREADS                                                                                             \
    _Pragma("omp parallel for collapse(3) schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)")   \
    EACH_BIN
#define BIN(k, p, q) (((k) * s.P + (p)) * s.Q + (q))

/* Compilers fuse products and sums; where the bits of `sampling.py` are wanted they must not. */
#ifdef __clang__
#define UNFUSED
#define UNFUSED_FROM_HERE _Pragma("STDC FP_CONTRACT OFF")
#else
#define UNFUSED __attribute__((optimize("fp-contract=off")))
#define UNFUSED_FROM_HERE
#endif

/* Whether the kernels can use several threads. */
int64_t threaded(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

static inline double within(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

/* Turns the work on each row into the thread that does it: bands of rows with about the same work for each. A single
   thread does it all, whatever the work: callers do not count it then. */
static void share_out(int64_t *owner, int64_t lines, int64_t threads)
{
    int64_t all = 0, before = 0;
    for (int64_t y = 0; y < lines; y++)
        all += owner[y];
    for (int64_t y = 0; y < lines; y++) {
        int64_t here = owner[y];
        owner[y] = before * threads / (all + 1);
        before += here;
    }
}

#define NUMBER uint16_t
#define SIDE 8
#define ROW row16
#define SQUARE square16
#define TRANSPOSE transpose16
#define LOWER_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#include "transpose.c"

#define NUMBER uint32_t
#define SIDE 4
#define ROW row32
#define SQUARE square32
#define TRANSPOSE transpose32
#define LOWER_HALVES 0, 4, 1, 5
#define UPPER_HALVES 2, 6, 3, 7
#include "transpose.c"

#define NUMBER uint64_t
#define SIDE 2
#define ROW row64
#define SQUARE square64
#define TRANSPOSE transpose64
#define LOWER_HALVES 0, 2
#define UPPER_HALVES 1, 3
#include "transpose.c"

/* to [n, columns, rows] = from [n, rows, columns], numbers of 2, 4 or 8 bytes. */
void transpose(void *to, const void *from, int64_t n, int64_t rows, int64_t columns, int64_t bytes, int64_t threads)
{
    if (bytes == 2)
        transpose16(to, from, n, rows, columns, threads);
    else if (bytes == 4)
        transpose32(to, from, n, rows, columns, threads);
    else
        transpose64(to, from, n, rows, columns, threads);
}

#include "compiled_max.c"
#include "compiled_sum.c"
