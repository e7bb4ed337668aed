/* RoIPool on a channels-last map, and its gradient. `compiled_max.py` builds this file and calls it.

   REAL     float or double, set when the file is built
   map      [B, H, W, C], the features; for `backward` their gradient, to be added to
   out      [K, P, Q, C], the maxima; for `backward` their gradient
   where    [K, P, Q, C], the cell of its bin that each maximum lies in, counted row by row
   image    [K], the image that each RoI lies on
   rows     [K, P, 2], each bin's first row and the one after its last, within 0 to H; columns [K, Q, 2] the same
   size     K, P, Q, H, W, C

   One thread; sums are taken in the order of RoIs and bins. */

#include <math.h>
#include <stdint.h>

struct bin {
    int64_t corner, tall, wide; /* its first cell, as an index into the map, and how many rows and columns it has */
};

static struct bin find(int64_t number, const int64_t *image, const int64_t *rows, const int64_t *columns,
                       const int64_t *size)
{
    int64_t P = size[1], Q = size[2], H = size[3], W = size[4], C = size[5];
    int64_t k = number / (P * Q), p = number / Q % P, q = number % Q;
    const int64_t *row = rows + 2 * (k * P + p), *column = columns + 2 * (k * Q + q);
    return (struct bin){((image[k] * H + row[0]) * W + column[0]) * C, row[1] - row[0], column[1] - column[0]};
}

void forward(const REAL *map, REAL *out, uint16_t *where, const int64_t *image, const int64_t *rows,
             const int64_t *columns, const int64_t *size)
{
    int64_t W = size[4], C = size[5];
    for (int64_t number = 0; number < size[0] * size[1] * size[2]; number++) {
        struct bin bin = find(number, image, rows, columns, size);
        REAL *restrict best = out + number * C;
        uint16_t *restrict place = where + number * C;
        uint16_t here = 0;
        for (int64_t c = 0; c < C; c++) {
            best[c] = bin.tall > 0 && bin.wide > 0 ? -INFINITY : 0;
            place[c] = 0;
        }
        for (int64_t y = 0; y < bin.tall; y++)
            for (int64_t x = 0; x < bin.wide; x++, here++) {
                const REAL *restrict value = map + bin.corner + (y * W + x) * C;
                /* Without branches, so that a compiler makes vector code of it. NaN counts as a maximum. */
                for (int64_t c = 0; c < C; c++) {
                    int larger = value[c] > best[c] || value[c] != value[c];
                    best[c] = larger ? value[c] : best[c];
                    place[c] = larger ? here : place[c];
                }
            }
    }
}

void backward(REAL *map, const REAL *out, const uint16_t *where, const int64_t *image, const int64_t *rows,
              const int64_t *columns, const int64_t *size)
{
    int64_t W = size[4], C = size[5];
    for (int64_t number = 0; number < size[0] * size[1] * size[2]; number++) {
        struct bin bin = find(number, image, rows, columns, size);
        const REAL *restrict grad = out + number * C;
        const uint16_t *restrict place = where + number * C;
        uint16_t here = 0;
        /* All cells of a bin are visited, which vector code does sooner than scalar code finds the right one. */
        for (int64_t y = 0; y < bin.tall; y++)
            for (int64_t x = 0; x < bin.wide; x++, here++) {
                REAL *restrict total = map + bin.corner + (y * W + x) * C;
                for (int64_t c = 0; c < C; c++)
                    total[c] += place[c] == here ? grad[c] : 0;
            }
    }
}
