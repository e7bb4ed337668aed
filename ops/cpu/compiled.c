/* The RoI operators on channels-last maps of a CPU, and their gradients. `compiled.py` builds this file;
   `compiled_sum.py` (RoIAlign, RoIWarp, position-sensitive pooling) and `compiled_max.py` (RoIPool) call it.

   REAL     float or double, set when the file is built
   out      [K, P, Q, C], the pooled features; grad their gradient
   plane    [K], the map of the image and level that each RoI lies on, [its height, width, C * parts * parts], as an
            address; for gradients what is to be added to
   width    [K], its width
   line     [K], its first row's number among all rows of all maps
   owner    [lines], zeros: room to note which thread writes each row of the maps
   threads  how many may work

   Forward, threads share out the bins; backward, the rows of the maps. No two write the same number, and each sum is
   taken in the order of RoIs and bins, so that the number of threads changes no bit. */

#include <math.h>
#include <stdint.h>

struct size {
    int64_t K, P, Q, C, lines;
    int64_t M, N;  /* how many rows and columns of the map a bin is given */
    int64_t parts; /* along either axis, for position-sensitive sums: each reads every parts * parts-th channel */
};

/* 64 bytes of numbers, which compilers keep in one register or in several; a block of four is summed at a time. */
typedef REAL vector __attribute__((vector_size(64), aligned(sizeof(REAL))));
enum { VECTORS = 4, BLOCK = VECTORS * 64 / sizeof(REAL) };

enum { SMALL = 1 << 14 }; /* outputs that one thread makes before a second has begun */

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

/* `sampling.axis_samples` and `sampling.mean_pairs` for S samples a bin: on one axis, the cells beside each bin's
   samples and their weights in its mean, both [K, P, N]; returns N, at most 2 S, for which there is room. low and high
   [K] are the ends of RoIs in cells of an axis of length [K]; total [2 S] is room to add in. */

UNFUSED int64_t mean_pairs(const double *low, const double *high, const double *length, int64_t *cells, double *weights,
                           double *total, int64_t K, int64_t P, int64_t S, int64_t aligned)
{
    UNFUSED_FROM_HERE
    int64_t longest = 1;
    for (int64_t bin = 0; bin < K * P; bin++) {
        int64_t k = bin / P, *cell = cells + bin * 2 * S, highest = 0;
        double *weight = weights + bin * 2 * S, last = length[k] - 1;
        double start = aligned ? low[k] - 0.5 : low[k], size = high[k] - low[k];
        double step = (aligned || size > 1 ? size : 1) / P, left = start + bin % P * step;
        for (int64_t i = 0; i < S; i++) {
            double position = left + (i + 0.5) * (step / S), inside = within(position, 0, last);
            double below = within(floor(inside), 0, last > 1 ? last - 1 : 0), above = inside - below;
            double fraction = position >= -1 && position <= length[k] ? 1.0 / S : 0; /* of the mean */
            cell[2 * i] = below;
            cell[2 * i + 1] = within(below + 1, 0, last);
            weight[2 * i] = (1 - above) * fraction;
            weight[2 * i + 1] = above * fraction;
            highest = cell[2 * i + 1] > highest ? cell[2 * i + 1] : highest;
        }
        int64_t lowest = cell[0] < cell[2 * S - 2] ? cell[0] : cell[2 * S - 2];
        longest = highest - lowest + 1 > longest ? highest - lowest + 1 : longest;
    }
    if (longest >= 2 * S)
        return 2 * S;
    for (int64_t bin = 0; bin < K * P; bin++) { /* Each cell once: what a bin is left with moves up. */
        const int64_t *cell = cells + bin * 2 * S, lowest = cell[0] < cell[2 * S - 2] ? cell[0] : cell[2 * S - 2];
        for (int64_t i = 0; i < longest; i++)
            total[i] = 0;
        for (int64_t i = 0; i < 2 * S; i++)
            total[cell[i] - lowest] += weights[bin * 2 * S + i];
        for (int64_t i = 0; i < longest; i++) {
            cells[bin * longest + i] = within(lowest + i, 0, length[bin / P] - 1);
            weights[bin * longest + i] = total[i];
        }
    }
    return longest;
}

/* `sampling.pool_bins`: RoIPool's bins [K, P, 2] on one axis, each with its first cell and the one after its last. */

void pool_bins(const double *low, const double *high, int64_t *bins, int64_t K, int64_t P, int64_t length)
{
    for (int64_t k = 0; k < K; k++) {
        int64_t first = within(round(low[k]), -(1 << 30), 1 << 30), last = within(round(high[k]), -(1 << 30), 1 << 30);
        int64_t size = last > first ? last - first + 1 : 1;
        for (int64_t p = 0; p < P; p++) {
            bins[2 * (k * P + p)] = within(first + p * size / P, 0, length);
            bins[2 * (k * P + p) + 1] = within(first + ((p + 1) * size + P - 1) / P, 0, length);
        }
    }
}

/* Turns the work on each row into the thread that does it: bands of rows with about the same work for each. */
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

/* The first channel of a bin's part, of [C, parts, parts]. */
static inline int64_t part_of(int64_t bin, const struct size s)
{
    return bin / s.Q % s.P * s.parts / s.P * s.parts + bin % s.Q * s.parts / s.Q;
}

/* total[c] += weight * value[c] for channels that lie `apart` numbers from each other in the map. */
static inline void add(REAL *restrict total, const REAL *restrict value, REAL weight, int64_t C, int64_t total_apart,
                       int64_t value_apart)
{
    if (total_apart == 1 && value_apart == 1)
        for (int64_t c = 0; c < C; c++)
            total[c] += weight * value[c];
    else
        for (int64_t c = 0; c < C; c++)
            total[c * total_apart] += weight * value[c * value_apart];
}

/* Weighted sums of cells. rows [K, P, M] are those that each bin reads, row_weights their weights; columns [K, Q, N]
   and column_weights the same. Cells of weight 0 are not read. */

void sum_forward(REAL *out, const int64_t *plane, const int64_t *width, const int64_t *rows, const REAL *row_weights,
                 const int64_t *columns, const REAL *column_weights, const struct size *size, int64_t threads)
{
    const struct size s = *size;
    const int64_t apart = s.parts * s.parts, in_blocks = apart == 1 ? s.C / BLOCK * BLOCK : 0;
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        int64_t k = bin / (s.P * s.Q), row = bin / s.Q * s.M, column = (k * s.Q + bin % s.Q) * s.N;
        const REAL *map = (const REAL *)plane[k] + part_of(bin, s);
        REAL *pooled = out + bin * s.C;
        for (int64_t c = 0; c < in_blocks; c += BLOCK) {
            vector sum[VECTORS] = {{0}};
            for (int64_t m = row; m < row + s.M; m++)
                for (int64_t n = column; row_weights[m] != 0 && n < column + s.N; n++) {
                    REAL weight = row_weights[m] * column_weights[n];
                    if (weight == 0)
                        continue;
                    const vector *value = (const vector *)(map + (rows[m] * width[k] + columns[n]) * s.C + c);
                    for (int v = 0; v < VECTORS; v++)
                        sum[v] += weight * value[v];
                }
            for (int v = 0; v < VECTORS; v++)
                ((vector *)(pooled + c))[v] = sum[v];
        }
        if (in_blocks == s.C)
            continue;
        for (int64_t c = in_blocks; c < s.C; c++)
            pooled[c] = 0;
        for (int64_t m = row; m < row + s.M; m++)
            for (int64_t n = column; row_weights[m] != 0 && n < column + s.N; n++) {
                REAL weight = row_weights[m] * column_weights[n];
                const REAL *value = map + (rows[m] * width[k] + columns[n]) * s.C * apart + in_blocks;
                if (weight != 0)
                    add(pooled + in_blocks, value, weight, s.C - in_blocks, 1, apart);
            }
    }
}

void sum_backward(const REAL *grad, const int64_t *plane, const int64_t *width, const int64_t *line,
                  const int64_t *rows, const REAL *row_weights, const int64_t *columns, const REAL *column_weights,
                  const struct size *size, int64_t *owner, int64_t threads)
{
    const struct size s = *size;
    const int64_t apart = s.parts * s.parts;
    for (int64_t m = 0; m < s.K * s.P * s.M; m++)
        owner[line[m / (s.P * s.M)] + rows[m]] += row_weights[m] != 0;
    share_out(owner, s.lines, threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t thread = 0; thread < threads; thread++)
        for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
            int64_t k = bin / (s.P * s.Q), row = bin / s.Q * s.M, column = (k * s.Q + bin % s.Q) * s.N;
            REAL *map = (REAL *)plane[k] + part_of(bin, s);
            for (int64_t m = row; m < row + s.M; m++) {
                if (row_weights[m] == 0 || owner[line[k] + rows[m]] != thread)
                    continue;
                for (int64_t n = column; n < column + s.N; n++) {
                    REAL weight = row_weights[m] * column_weights[n];
                    REAL *total = map + (rows[m] * width[k] + columns[n]) * s.C * apart;
                    if (weight != 0)
                        add(total, grad + bin * s.C, weight, s.C, apart, 1);
                }
            }
        }
}

/* Maxima of cells. rows [K, P, 2] are each bin's first row and the one after its last, within 0 to H; columns [K, Q, 2]
   the same. where [K, P, Q, C] is the cell of its bin that each maximum lies in, counted row by row. */

void max_forward(REAL *out, uint16_t *where, const int64_t *plane, const int64_t *width, const int64_t *rows,
                 const int64_t *columns, const struct size *size, int64_t threads)
{
    const struct size s = *size;
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        int64_t k = bin / (s.P * s.Q);
        const int64_t *tall = rows + bin / s.Q * 2, *wide = columns + (k * s.Q + bin % s.Q) * 2;
        const REAL *map = (const REAL *)plane[k];
        REAL *restrict best = out + bin * s.C;
        uint16_t *restrict place = where + bin * s.C, here = 0;
        for (int64_t c = 0; c < s.C; c++) {
            best[c] = tall[0] < tall[1] && wide[0] < wide[1] ? -INFINITY : 0;
            place[c] = 0;
        }
        for (int64_t y = tall[0]; y < tall[1]; y++)
            for (int64_t x = wide[0]; x < wide[1]; x++, here++) {
                const REAL *restrict value = map + (y * width[k] + x) * s.C;
                /* Without branches, so that a compiler makes vector code of it. NaN counts as a maximum. */
                for (int64_t c = 0; c < s.C; c++) {
                    int larger = value[c] > best[c] || value[c] != value[c];
                    best[c] = larger ? value[c] : best[c];
                    place[c] = larger ? here : place[c];
                }
            }
    }
}

void max_backward(const REAL *grad, const uint16_t *where, const int64_t *plane, const int64_t *width,
                  const int64_t *line, const int64_t *rows, const int64_t *columns, const struct size *size,
                  int64_t *owner, int64_t threads)
{
    const struct size s = *size;
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        int64_t k = bin / (s.P * s.Q);
        const int64_t *tall = rows + bin / s.Q * 2, *wide = columns + (k * s.Q + bin % s.Q) * 2;
        for (int64_t y = tall[0]; y < tall[1]; y++)
            owner[line[k] + y] += wide[0] < wide[1] ? wide[1] - wide[0] : 0;
    }
    share_out(owner, s.lines, threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t thread = 0; thread < threads; thread++)
        for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
            int64_t k = bin / (s.P * s.Q);
            const int64_t *tall = rows + bin / s.Q * 2, *wide = columns + (k * s.Q + bin % s.Q) * 2;
            REAL *map = (REAL *)plane[k];
            const REAL *restrict given = grad + bin * s.C;
            const uint16_t *restrict place = where + bin * s.C;
            /* All cells of a bin are visited, which vector code does sooner than scalar code finds the right one. */
            for (int64_t y = tall[0]; y < tall[1]; y++) {
                if (owner[line[k] + y] != thread)
                    continue;
                for (int64_t x = wide[0]; x < wide[1]; x++) {
                    REAL *restrict total = map + (y * width[k] + x) * s.C;
                    uint16_t here = (y - tall[0]) * (wide[1] - wide[0]) + x - wide[0];
                    for (int64_t c = 0; c < s.C; c++)
                        total[c] += place[c] == here ? given[c] : 0;
                }
            }
        }
}

/* For maxima as `torchvision::roi_pool` reports them. cells [K, P, Q, C] become y * map_width + x of each, or -1. */

void cells_of_map(int32_t *cells, const uint16_t *where, const int64_t *rows, const int64_t *columns,
                  const struct size *size, int64_t map_width)
{
    const struct size s = *size;
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        const int64_t *tall = rows + bin / s.Q * 2, *wide = columns + (bin / (s.P * s.Q) * s.Q + bin % s.Q) * 2;
        const int32_t span = wide[1] - wide[0], first = tall[0] * map_width + wide[0], next = map_width - span;
        const int empty = tall[0] >= tall[1] || span <= 0;
        int32_t *restrict cell = cells + bin * s.C;
        const uint16_t *restrict place = where + bin * s.C;
        for (int64_t c = 0; c < s.C; c++) /* both below 2^24, so that a float's quotient is floored right */
            cell[c] = empty ? -1 : first + place[c] + (int32_t)(place[c] / (float)span) * next;
    }
}

/* Their gradient on maps as torchvision lays them out: adds grad [K, C, bins] to total [B, C, cells] at cells
   argmax [K, C, bins], none at -1. Each thread has channels of its own, and RoIs come in order. */

void scatter(const REAL *grad, const int32_t *argmax, const int64_t *image, REAL *total, int64_t K, int64_t C,
             int64_t bins, int64_t cells, int64_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (K * C * bins > SMALL)
    for (int64_t c = 0; c < C; c++)
        for (int64_t k = 0; k < K; k++) {
            REAL *plane = total + (image[k] * C + c) * cells;
            for (int64_t bin = (k * C + c) * bins; bin < (k * C + c + 1) * bins; bin++)
                if (argmax[bin] >= 0)
                    plane[argmax[bin]] += grad[bin];
        }
}
