// Sums of neighbouring rows, in a fixed order, without atomic additions.
//
// x (rows, width) lies in segments; starts[r] is the first row of r's segment. Every FAN_IN·step
// rows of a segment, counted from its start, one row gathers FAN_IN others, `step` apart. Launched
// with step = 1, FAN_IN, FAN_IN², … until a launch reaches across all rows, the first row of each
// segment ends as the sum of all its rows. A row that gathers is gathered by no other in the same
// launch, so it can be done in place.
#include "in_flight.cuh"

const unsigned long long FAN_IN = 64;
const int FEW = 8;

template <typename T>
struct Other {
    long long start;
    T x;
};

template <typename T>
__device__ void add_segments(
    T* x, const long long* starts, unsigned long long rows, unsigned long long width,
    unsigned long long step) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    unsigned long long row = i / width, column = i % width, few = FEW * step;
    long long start = starts[row];
    if ((row - start) % (FAN_IN * step) != 0) return;
    unsigned long long end = row + FAN_IN * step < rows ? row + FAN_IN * step : rows;
    T sum = x[i];
    // Most segments are short: a few rows at a time, as long as the first of them belongs to it.
    for (unsigned long long r = row + step; r < end && starts[r] == start; r += few) {
        for_each<FEW>(
            r, r + few < end ? r + few : end, step,
            [&](unsigned long long r) { return Other<T>{starts[r], x[r * width + column]}; },
            [&](unsigned long long, Other<T> other) {
                if (other.start == start) sum += other.x;
            });
    }
    x[i] = sum;
}

extern "C" __global__ void add_segments_float32(
    float* x, const long long* starts, unsigned long long rows, unsigned long long width,
    unsigned long long step) {
    add_segments(x, starts, rows, width, step);
}

extern "C" __global__ void add_segments_float64(
    double* x, const long long* starts, unsigned long long rows, unsigned long long width,
    unsigned long long step) {
    add_segments(x, starts, rows, width, step);
}

// table[ids[r]] += x[r], once for each run of equal ids, which all have the same row.
extern "C" __global__ void add_rows(
    const float* x, const long long* ids, float* table, unsigned long long rows,
    unsigned long long width) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    unsigned long long row = i / width;
    if (row > 0 && ids[row] == ids[row - 1]) return;
    table[ids[row] * width + i % width] += x[i];
}
