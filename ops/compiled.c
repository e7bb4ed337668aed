/* The RoI operators on channels-last maps of a CPU, and their gradients. `compiled.py` builds this file;
   `compiled_sum.py` (RoIAlign, RoIWarp, position-sensitive pooling) and `compiled_max.py` (RoIPool) call it.

   REAL     float or double, set when the file is built
   out      [K, P, Q, C], the pooled features; for gradients their gradient
   plane    [K], the map of the image and level that each RoI lies on, [its height, width, C], as an address; for
            gradients what is to be added to
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
    int64_t M, N; /* how many rows and columns of the map a bin is given */
};

/* 64 bytes of numbers, which compilers keep in one register or in several; a block of four is summed at a time. */
typedef REAL vector __attribute__((vector_size(64), aligned(sizeof(REAL))));
enum { VECTORS = 4, BLOCK = VECTORS * 64 / sizeof(REAL) };

/* Turns the work on each row into the thread that does it: bands of rows with about the same work for each. */
static void share(int64_t *owner, int64_t rows, int64_t threads)
{
    int64_t all = 0, before = 0;
    for (int64_t y = 0; y < rows; y++)
        all += owner[y];
    for (int64_t y = 0; y < rows; y++) {
        int64_t here = owner[y];
        owner[y] = before * threads / (all + 1);
        before += here;
    }
}

/* Weighted sums of cells. rows [K, P, M] are those that each bin reads, row_weights their weights; columns [K, Q, N]
   and column_weights the same. */

void sum_forward(REAL *out, const int64_t *plane, const int64_t *width, const int64_t *rows, const REAL *row_weights,
                 const int64_t *columns, const REAL *column_weights, const struct size *size, int threads)
{
    const struct size s = *size;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        int64_t k = bin / (s.P * s.Q), row = bin / s.Q * s.M, column = (k * s.Q + bin % s.Q) * s.N, c = 0;
        const REAL *map = (const REAL *)plane[k];
        for (; c + BLOCK <= s.C; c += BLOCK) {
            vector sum[VECTORS] = {{0}};
            for (int64_t m = row; m < row + s.M; m++)
                for (int64_t n = column; n < column + s.N; n++) {
                    REAL weight = row_weights[m] * column_weights[n];
                    if (weight == 0)
                        continue;
                    const vector *value = (const vector *)(map + (rows[m] * width[k] + columns[n]) * s.C + c);
                    for (int v = 0; v < VECTORS; v++)
                        sum[v] += weight * value[v];
                }
            for (int v = 0; v < VECTORS; v++)
                ((vector *)(out + bin * s.C + c))[v] = sum[v];
        }
        for (; c < s.C; c++) {
            REAL sum = 0;
            for (int64_t m = row; m < row + s.M; m++)
                for (int64_t n = column; n < column + s.N; n++) {
                    REAL weight = row_weights[m] * column_weights[n];
                    if (weight != 0)
                        sum += weight * map[(rows[m] * width[k] + columns[n]) * s.C + c];
                }
            out[bin * s.C + c] = sum;
        }
    }
}

void sum_backward(const REAL *out, const int64_t *plane, const int64_t *width, const int64_t *line, const int64_t *rows,
                  const REAL *row_weights, const int64_t *columns, const REAL *column_weights,
                  const struct size *size, int64_t *owner, int threads)
{
    const struct size s = *size;
    for (int64_t m = 0; m < s.K * s.P * s.M; m++)
        owner[line[m / (s.P * s.M)] + rows[m]] += row_weights[m] != 0;
    share(owner, s.lines, threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
            int64_t k = bin / (s.P * s.Q), row = bin / s.Q * s.M, column = (k * s.Q + bin % s.Q) * s.N;
            REAL *map = (REAL *)plane[k];
            const REAL *restrict grad = out + bin * s.C;
            for (int64_t m = row; m < row + s.M; m++) {
                if (owner[line[k] + rows[m]] != thread)
                    continue;
                for (int64_t n = column; n < column + s.N; n++) {
                    REAL weight = row_weights[m] * column_weights[n];
                    if (weight == 0)
                        continue;
                    REAL *restrict total = map + (rows[m] * width[k] + columns[n]) * s.C;
                    for (int64_t c = 0; c < s.C; c++)
                        total[c] += weight * grad[c];
                }
            }
        }
}

/* Maxima of cells. rows [K, P, 2] are each bin's first row and the one after its last, within 0 to H; columns [K, Q, 2]
   the same. where [K, P, Q, C] is the cell of its bin that each maximum lies in, counted row by row. */

void max_forward(REAL *out, uint16_t *where, const int64_t *plane, const int64_t *width, const int64_t *rows,
                 const int64_t *columns, const struct size *size, int threads)
{
    const struct size s = *size;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        int64_t k = bin / (s.P * s.Q);
        const int64_t *row = rows + bin / s.Q * 2, *column = columns + (k * s.Q + bin % s.Q) * 2;
        const REAL *map = (const REAL *)plane[k];
        REAL *restrict best = out + bin * s.C;
        uint16_t *restrict place = where + bin * s.C, here = 0;
        for (int64_t c = 0; c < s.C; c++) {
            best[c] = row[0] < row[1] && column[0] < column[1] ? -INFINITY : 0;
            place[c] = 0;
        }
        for (int64_t y = row[0]; y < row[1]; y++)
            for (int64_t x = column[0]; x < column[1]; x++, here++) {
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

void max_backward(const REAL *out, const uint16_t *where, const int64_t *plane, const int64_t *width,
                  const int64_t *line, const int64_t *rows, const int64_t *columns, const struct size *size,
                  int64_t *owner, int threads)
{
    const struct size s = *size;
    for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
        int64_t k = bin / (s.P * s.Q);
        const int64_t *row = rows + bin / s.Q * 2, *column = columns + (k * s.Q + bin % s.Q) * 2;
        for (int64_t y = row[0]; y < row[1]; y++)
            owner[line[k] + y] += column[0] < column[1] ? column[1] - column[0] : 0;
    }
    share(owner, s.lines, threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int thread = 0; thread < threads; thread++)
        for (int64_t bin = 0; bin < s.K * s.P * s.Q; bin++) {
            int64_t k = bin / (s.P * s.Q);
            const int64_t *row = rows + bin / s.Q * 2, *column = columns + (k * s.Q + bin % s.Q) * 2;
            REAL *map = (REAL *)plane[k];
            const REAL *restrict grad = out + bin * s.C;
            const uint16_t *restrict place = where + bin * s.C;
            /* All cells of a bin are visited, which vector code does sooner than scalar code finds the right one. */
            for (int64_t y = row[0]; y < row[1]; y++) {
                if (owner[line[k] + y] != thread)
                    continue;
                for (int64_t x = column[0]; x < column[1]; x++) {
                    REAL *restrict total = map + (y * width[k] + x) * s.C;
                    uint16_t here = (y - row[0]) * (column[1] - column[0]) + x - column[0];
                    for (int64_t c = 0; c < s.C; c++)
                        total[c] += place[c] == here ? grad[c] : 0;
                }
            }
        }
}
