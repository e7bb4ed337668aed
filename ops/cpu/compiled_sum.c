/* Weighted sums of cells, for `compiled_sum.py`; names as in `compiled.c`, which includes this file. */

/* `sampling.axis_samples` in one bin: `count` samples, `gap` apart, of which those from slot `first` to `last` are
   taken. With an adaptive number, that of ratio 0, the others are outside the map. */
struct samples {
    double left, gap, count, first, last;
};

UNFUSED static struct samples samples_of(double low, double high, double length, int64_t p, int64_t P, int64_t ratio,
                                         int64_t aligned)
{
    UNFUSED_FROM_HERE
    double size = high - low, step = (aligned || size > 1 ? size : 1) / P;
    double count = ratio > 0 ? ratio : step > 0 ? ceil(step) : 0;
    struct samples s = {(aligned ? low - 0.5 : low) + p * step, step / (count > 1 ? count : 1), count, 0, count - 1};
    if (ratio > 0 || count == 0)
        return s;
    double whole = s.gap > DBL_MIN ? s.gap : DBL_MIN;
    s.first = within(floor((-1 - s.left) / whole - 0.5), 0, count - 1);
    s.last = within(ceil((length - s.left) / whole + 0.5), 0, count - 1);
    return s;
}

/* The most slots that a bin of an adaptive number of samples takes; low, high and length as for `mean_pairs`. */
int64_t adaptive_slots(const double *low, const double *high, const double *length, int64_t K, int64_t P,
                       int64_t aligned)
{
    double most = 1;
    for (int64_t bin = 0; bin < K * P; bin++) {
        int64_t k = bin / P;
        struct samples s = samples_of(low[k], high[k], length[k], bin % P, P, 0, aligned);
        most = s.last - s.first + 1 > most ? s.last - s.first + 1 : most;
    }
    return most;
}

/* `sampling.mean_pairs`: on one axis, the cells beside each bin's samples, in S slots, and their weights in its mean,
   both [K, P, N]; returns N, at most 2 S, for which there is room. low and high [K] are the ends of RoIs in cells of an
   axis of length [K]; total [2 S] is room to add in. */

UNFUSED int64_t mean_pairs(const double *low, const double *high, const double *length, int64_t *cells, double *weights,
                           double *total, int64_t K, int64_t P, int64_t S, int64_t ratio, int64_t aligned)
{
    UNFUSED_FROM_HERE
    int64_t longest = 1;
    for (int64_t bin = 0; bin < K * P; bin++) {
        int64_t k = bin / P, *cell = cells + bin * 2 * S, highest = 0;
        double *weight = weights + bin * 2 * S, last = length[k] - 1;
        struct samples s = samples_of(low[k], high[k], length[k], bin % P, P, ratio, aligned);
        for (int64_t i = 0; i < S; i++) {
            double slot = s.first + i < s.last ? s.first + i : s.last > 0 ? s.last : 0;
            double position = s.left + (slot + 0.5) * s.gap, inside = within(position, 0, last);
            double below = within(floor(inside), 0, last > 1 ? last - 1 : 0), above = inside - below;
            int reads = s.first + i <= s.last && position >= -1 && position <= length[k];
            double fraction = reads ? 1 / s.count : 0; /* of the mean */
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

/* The first channel of a bin's part, of [C, parts, parts]. */
static inline int64_t part_of(int64_t p, int64_t q, const struct size s)
{
    return s.parts == 1 ? 0 : p * s.parts / s.P * s.parts + q * s.parts / s.Q;
}

/* total[c] += weight * value[c] for channels that lie `apart` numbers from each other in total. */
static inline void add(REAL *restrict total, const stored *restrict value, REAL weight, int64_t C, int64_t apart)
{
    if (apart == 1)
        for (int64_t c = 0; c < C; c++)
            total[c] += weight * load_one(value + c);
    else
        for (int64_t c = 0; c < C; c++)
            total[c * apart] += weight * load_one(value + c);
}

/* Weighted sums of cells. rows [K, P, M] are those that each bin reads, row_weights their weights; columns [K, Q, N]
   and column_weights the same. Cells of weight 0 are not read. */

#define EACH_CELL                                                                                                      \
    for (int64_t m = row; m < row + s.M; m++)                                                                          \
        for (int64_t n = column; row_weights[m] != 0 && n < column + s.N; n++)

void sum_forward(stored *out, const int64_t *plane, const int64_t *width, const int64_t *rows, const REAL *row_weights,
                 const int64_t *columns, const REAL *column_weights, const struct size *size, int64_t threads)
{
    const struct size s = *size;
    const int64_t apart = s.parts * s.parts, in_blocks = apart == 1 ? s.C / BLOCK * BLOCK : 0;
    BINS_AMONG_THREADS
    {
        int64_t bin = BIN(k, p, q), row = (k * s.P + p) * s.M, column = (k * s.Q + q) * s.N;
        const stored *map = (const stored *)plane[k] + part_of(p, q, s);
        stored *pooled = out + bin * s.C;
        for (int64_t c = 0; c < in_blocks; c += BLOCK) {
            vector sum[VECTORS] = {{0}};
            EACH_CELL
            {
                const REAL weight = row_weights[m] * column_weights[n];
                if (weight == 0)
                    continue;
                vector value[VECTORS];
                load(value, map + (rows[m] * width[k] + columns[n]) * s.C + c);
                UNROLLED
                for (int v = 0; v < VECTORS; v++)
                    sum[v] += weight * value[v];
            }
            store(pooled + c, sum);
        }
        for (int64_t from = in_blocks; from < s.C; from += BLOCK) {
            const int64_t channels = s.C - from < BLOCK ? s.C - from : BLOCK;
            REAL sum[BLOCK] = {0};
            EACH_CELL
            {
                const REAL weight = row_weights[m] * column_weights[n];
                const stored *value = map + ((rows[m] * width[k] + columns[n]) * s.C + from) * apart;
                for (int64_t c = 0; weight != 0 && c < channels; c++)
                    sum[c] += weight * load_one(value + c * apart);
            }
            for (int64_t c = 0; c < channels; c++)
                store_one(pooled + from + c, sum[c]);
        }
    }
}

void sum_backward(const stored *grad, const int64_t *plane, const int64_t *width, const int64_t *line,
                  const int64_t *rows, const REAL *row_weights, const int64_t *columns, const REAL *column_weights,
                  const struct size *size, int64_t *owner, int64_t threads)
{
    const struct size s = *size;
    const int64_t apart = s.parts * s.parts;
    for (int64_t m = 0; threads > 1 && m < s.K * s.P * s.M; m++)
        owner[line[m / (s.P * s.M)] + rows[m]] += row_weights[m] != 0;
    share_out(owner, s.lines, threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t thread = 0; thread < threads; thread++)
        EACH_BIN
        {
            int64_t row = (k * s.P + p) * s.M, column = (k * s.Q + q) * s.N;
            REAL *map = (REAL *)plane[k] + part_of(p, q, s);
            EACH_CELL
            {
                if (owner[line[k] + rows[m]] != thread)
                    break;
                const REAL weight = row_weights[m] * column_weights[n];
                REAL *total = map + (rows[m] * width[k] + columns[n]) * s.C * apart;
                if (weight != 0)
                    add(total, grad + BIN(k, p, q) * s.C, weight, s.C, apart);
            }
        }
}

/* Into used: how many of each bin's cells come before the last whose weight is not 0; weights are [bins, M]. */
static void count_used(int64_t *used, const REAL *weights, int64_t bins, int64_t M)
{
    for (int64_t bin = 0; bin < bins; bin++)
        for (used[bin] = M; used[bin] > 0 && weights[bin * M + used[bin] - 1] == 0; used[bin]--)
            ;
}

/* A bin's cells on one channel's plane: M rows and N columns with their weights. */
struct cells {
    const int64_t *rows, *columns;
    const REAL *row_weights, *column_weights;
    int64_t M, N;
};

static inline REAL gather(const stored *plane, int64_t width, const struct cells *bin)
{
    REAL sum = 0;
    for (int64_t m = 0; m < bin->M; m++)
        for (int64_t n = 0; n < bin->N; n++) {
            const REAL weight = bin->row_weights[m] * bin->column_weights[n];
            if (weight != 0)
                sum += weight * load_one(plane + bin->rows[m] * width + bin->columns[n]);
        }
    return sum;
}

static inline void spread(REAL *plane, int64_t width, REAL grad, const struct cells *bin)
{
    for (int64_t m = 0; m < bin->M; m++)
        for (int64_t n = 0; n < bin->N; n++) {
            const REAL weight = bin->row_weights[m] * bin->column_weights[n];
            if (weight != 0)
                plane[bin->rows[m] * width + bin->columns[n]] += weight * grad;
        }
}

/* The same sums of maps that lie as [B, C * parts * parts, H * W], the cells of one channel together: as `sum_forward`
   (total is out, maps are of stored) and, where `backward` is set, as `sum_backward` (total is grad, maps are of REAL).
   image [K]; columns and rows as above; used [K * (P + Q)], room to note how many of each bin's rows, then of its
   columns, come before its last weight but 0. Each thread has parts of its own, and RoIs come in order: per cell the
   order of sums is that of the others. */

void sum_planes(stored *total, void *maps, const int64_t *image, const int64_t *rows, const REAL *row_weights,
                const int64_t *columns, const REAL *column_weights, const struct size *size, int64_t height,
                int64_t width, int64_t *used, int64_t backward, int64_t threads)
{
    const struct size s = *size;
    count_used(used, row_weights, s.K * s.P, s.M);
    count_used(used + s.K * s.P, column_weights, s.K * s.Q, s.N);
    const int64_t apart = s.parts * s.parts, high = s.P / s.parts, wide = s.Q / s.parts;
#pragma omp parallel for schedule(static) num_threads(threads) if (s.K * s.P * s.Q * s.C > SMALL)
    for (int64_t part = 0; part < apart; part++)
        for (int64_t k = 0; k < s.K; k++)
            for (int64_t p = part / s.parts * high; p < (part / s.parts + 1) * high; p++)
                for (int64_t q = part % s.parts * wide; q < (part % s.parts + 1) * wide; q++) {
                    const int64_t row = (k * s.P + p) * s.M, column = (k * s.Q + q) * s.N;
                    const struct cells bin = {rows + row, columns + column, row_weights + row, column_weights + column,
                                              used[k * s.P + p], used[s.K * s.P + k * s.Q + q]};
                    for (int64_t c = 0; c < s.C; c++) {
                        const int64_t plane = ((image[k] * s.C + c) * apart + part) * height * width;
                        stored *pooled = total + BIN(k, p, q) * s.C + c;
                        if (backward)
                            spread((REAL *)maps + plane, width, load_one(pooled), &bin);
                        else
                            store_one(pooled, gather((const stored *)maps + plane, width, &bin));
                    }
                }
}
