/* Maxima of cells, for `compiled_max.py`; names as in `compiled.c`, which includes this file. */

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

/* `max_forward` in one bin, for BLOCK channels that stay in registers meanwhile. A cell that is NaN counts as larger. */
static inline void max_of_block(stored *out, uint16_t *where, const stored *map, int64_t width, const int64_t *tall,
                                const int64_t *wide, int64_t C)
{
    if (tall[0] >= tall[1] || wide[0] >= wide[1]) {
        for (int c = 0; c < BLOCK; c++)
            out[c] = where[c] = 0;
        return;
    }
    vector best[VECTORS];
    integers place[VECTORS], here = {0};
    load(best, map + (tall[0] * width + wide[0]) * C);
    UNROLLED
    for (int v = 0; v < VECTORS; v++)
        place[v] = here;
    for (int64_t y = tall[0], x = wide[0] + 1; y < tall[1]; y++, x = wide[0])
        for (; x < wide[1]; x++) {
            vector value[VECTORS];
            load(value, map + (y * width + x) * C);
            here += 1;
            UNROLLED
            for (int v = 0; v < VECTORS; v++) {
                integers larger = (value[v] > best[v]) | (value[v] != value[v]);
                best[v] = (vector)((larger & (integers)value[v]) | (~larger & (integers)best[v]));
                place[v] = (larger & here) | (~larger & place[v]);
            }
        }
    store(out, best);
    store_places(where, place);
}

/* Maxima of cells. rows [K, P, 2] are each bin's first row and the one after its last, within 0 to H; columns [K, Q, 2]
   the same. where [K, P, Q, C] is the cell of its bin that each maximum lies in, counted row by row. */

void max_forward(stored *out, uint16_t *where, const int64_t *plane, const int64_t *width, const int64_t *rows,
                 const int64_t *columns, const struct size *size, int64_t threads)
{
    const struct size s = *size;
    const int64_t in_blocks = s.C / BLOCK * BLOCK;
    BINS_AMONG_THREADS
    {
        const int64_t bin = BIN(k, p, q), *tall = rows + (k * s.P + p) * 2, *wide = columns + (k * s.Q + q) * 2;
        const stored *map = (const stored *)plane[k];
        stored *restrict best = out + bin * s.C;
        uint16_t *restrict place = where + bin * s.C, here = 0;
        int empty = tall[0] >= tall[1] || wide[0] >= wide[1];
        for (int64_t c = 0; c < in_blocks; c += BLOCK)
            max_of_block(best + c, place + c, map + c, width[k], tall, wide, s.C);
        for (int64_t c = in_blocks; c < s.C; c++) {
            store_one(best + c, empty ? 0 : -INFINITY);
            place[c] = 0;
        }
        for (int64_t y = tall[0]; in_blocks < s.C && y < tall[1]; y++)
            for (int64_t x = wide[0]; x < wide[1]; x++, here++) {
                const stored *restrict value = map + (y * width[k] + x) * s.C;
                /* Without branches, so that a compiler makes vector code of it. NaN counts as a maximum. */
                for (int64_t c = in_blocks; c < s.C; c++) {
                    REAL here_is = load_one(value + c);
                    int larger = here_is > load_one(best + c) || here_is != here_is;
                    best[c] = larger ? value[c] : best[c];
                    place[c] = larger ? here : place[c];
                }
            }
    }
}

/* `max_backward` of one bin, for BLOCK channels in the rows that a thread owns. All cells of a bin are visited, which
   vector code does sooner than scalar code finds the right one. */
static inline void spread_block(const stored *grad, const uint16_t *where, REAL *map, int64_t width, const int64_t *tall,
                                const int64_t *wide, int64_t C, const int64_t *owner, int64_t thread)
{
    integers place[VECTORS], given[VECTORS];
    UNROLLED
    for (int v = 0; v < VECTORS; v++) {
        place[v] = __builtin_convertvector(((const shorts *)where)[v], integers);
        given[v] = (integers)load_in_order(grad + v * LANES);
    }
    for (int64_t y = tall[0]; y < tall[1]; y++)
        for (int64_t x = wide[0]; owner[y] == thread && x < wide[1]; x++) {
            vector *total = (vector *)(map + (y * width + x) * C);
            const integers here = (integers){0} + (integer)((y - tall[0]) * (wide[1] - wide[0]) + x - wide[0]);
            UNROLLED
            for (int v = 0; v < VECTORS; v++)
                total[v] += (vector)((place[v] == here) & given[v]);
        }
}

void max_backward(const stored *grad, const uint16_t *where, const int64_t *plane, const int64_t *width,
                  const int64_t *line, const int64_t *rows, const int64_t *columns, const struct size *size,
                  int64_t *owner, int64_t threads)
{
    const struct size s = *size;
    const int64_t in_blocks = s.C / BLOCK * BLOCK;
    EACH_BIN
    {
        const int64_t *tall = rows + (k * s.P + p) * 2, *wide = columns + (k * s.Q + q) * 2;
        for (int64_t y = tall[0]; threads > 1 && y < tall[1]; y++)
            owner[line[k] + y] += wide[0] < wide[1] ? wide[1] - wide[0] : 0;
    }
    share_out(owner, s.lines, threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t thread = 0; thread < threads; thread++)
        EACH_BIN
        {
            const int64_t bin = BIN(k, p, q), *tall = rows + (k * s.P + p) * 2, *wide = columns + (k * s.Q + q) * 2;
            const int64_t *of = owner + line[k];
            /* Rows of a thread lie together: bins without any are not read at all. */
            if (tall[0] >= tall[1] || of[tall[0]] > thread || of[tall[1] - 1] < thread)
                continue;
            REAL *map = (REAL *)plane[k];
            const stored *restrict given = grad + bin * s.C;
            const uint16_t *restrict place = where + bin * s.C;
            for (int64_t c = 0; c < in_blocks; c += BLOCK)
                spread_block(given + c, place + c, map + c, width[k], tall, wide, s.C, of, thread);
            for (int64_t y = tall[0]; in_blocks < s.C && y < tall[1]; y++) {
                if (of[y] != thread)
                    continue;
                for (int64_t x = wide[0]; x < wide[1]; x++) {
                    REAL *restrict total = map + (y * width[k] + x) * s.C;
                    uint16_t here = (y - tall[0]) * (wide[1] - wide[0]) + x - wide[0];
                    for (int64_t c = in_blocks; c < s.C; c++)
                        total[c] += place[c] == here ? load_one(given + c) : 0;
                }
            }
        }
}

/* For maxima as `torchvision::roi_pool` reports them. cells [K, P, Q, C] become y * map_width + x of each, or -1. */

void cells_of_map(int32_t *cells, const uint16_t *where, const int64_t *rows, const int64_t *columns,
                  const struct size *size, int64_t map_width)
{
    const struct size s = *size;
    EACH_BIN
    {
        const int64_t bin = BIN(k, p, q), *tall = rows + (k * s.P + p) * 2, *wide = columns + (k * s.Q + q) * 2;
        const int32_t span = wide[1] - wide[0], first = tall[0] * map_width + wide[0], next = map_width - span;
        const int empty = tall[0] >= tall[1] || span <= 0;
        int32_t *restrict cell = cells + bin * s.C;
        const uint16_t *restrict place = where + bin * s.C;
        for (int64_t c = 0; c < s.C; c++) /* both below 2^24, so that a float's quotient is floored right */
            cell[c] = empty ? -1 : first + place[c] + (int32_t)(place[c] / (float)span) * next;
    }
}

/* Their gradient on maps as torchvision lays them out: adds grad [K, C, bins] to total [B, C, cells] at cells
   argmax [K, C, bins], none at -1 or beyond the map. Each thread has channels of its own, and RoIs come in order. */

void scatter(const stored *grad, const int32_t *argmax, const int64_t *image, REAL *total, int64_t K, int64_t C,
             int64_t bins, int64_t cells, int64_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (K * C * bins > SMALL)
    for (int64_t c = 0; c < C; c++)
        for (int64_t k = 0; k < K; k++) {
            REAL *plane = total + (image[k] * C + c) * cells;
            for (int64_t bin = (k * C + c) * bins; bin < (k * C + c + 1) * bins; bin++)
                if ((uint64_t)(int64_t)argmax[bin] < (uint64_t)cells)
                    plane[argmax[bin]] += load_one(grad + bin);
        }
}
