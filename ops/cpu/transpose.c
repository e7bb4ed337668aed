/* TRANSPOSE(to, from, n, rows, columns, threads) for a type NUMBER, of which SIDE fill 16 bytes: to [n, columns, rows] =
   from [n, rows, columns]. `compiled.c` includes this file once for each size of numbers.

   Squares are exchanged in registers of 16 bytes, which all machines have: rows are merged, the first half's with the
   second's, until columns are together. Whole cache lines are written, and those that follow are fetched meanwhile. */

typedef NUMBER ROW __attribute__((vector_size(16), aligned(sizeof(NUMBER))));

#ifdef __clang__
#define MERGE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MERGE(a, b, ...) __builtin_shuffle(a, b, (ROW){__VA_ARGS__})
#endif

static inline void SQUARE(NUMBER *to, const NUMBER *from, int64_t rows, int64_t columns)
{
    ROW square[SIDE], merged[SIDE];
    for (int y = 0; y < SIDE; y++)
        square[y] = *(const ROW *)(from + y * columns);
    for (int step = 1; step < SIDE; step *= 2) {
        for (int y = 0; y < SIDE / 2; y++) {
            merged[2 * y] = MERGE(square[y], square[y + SIDE / 2], LOWER_HALVES);
            merged[2 * y + 1] = MERGE(square[y], square[y + SIDE / 2], UPPER_HALVES);
        }
        for (int y = 0; y < SIDE; y++)
            square[y] = merged[y];
    }
    for (int x = 0; x < SIDE; x++)
        *(ROW *)(to + x * rows) = square[x];
}

static void TRANSPOSE(NUMBER *to, const NUMBER *from, int64_t n, int64_t rows, int64_t columns, int64_t threads)
{
    const int64_t line = 64 / sizeof(NUMBER), wide = 4 * line;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (n * rows * columns > SMALL)
    for (int64_t i = 0; i < n; i++)
        for (int64_t left = 0; left < columns; left += wide) {
            const NUMBER *source = from + i * rows * columns;
            NUMBER *target = to + i * rows * columns;
            const int64_t right = left + wide < columns ? left + wide : columns;
            for (int64_t top = 0; top < rows; top += line)
                for (int64_t x = left; x < right; x += SIDE)
                    for (int64_t y = top; y < rows && y < top + line; y += SIDE) {
                        __builtin_prefetch(source + (y + line + x / SIDE % SIDE) * columns + x);
                        __builtin_prefetch(target + (x + (y - top) / SIDE) * rows + top + line, 1);
                        if (y + SIDE <= rows && x + SIDE <= right) {
                            SQUARE(target + x * rows + y, source + y * columns + x, rows, columns);
                            continue;
                        }
                        for (int64_t down = y; down < rows && down < y + SIDE; down++)
                            for (int64_t across = x; across < right && across < x + SIDE; across++)
                                target[across * rows + down] = source[down * columns + across];
                    }
        }
}

#undef MERGE
#undef NUMBER
#undef SIDE
#undef ROW
#undef SQUARE
#undef TRANSPOSE
#undef LOWER_HALVES
#undef UPPER_HALVES
