// Sums over rows in a fixed order, in two launches: gradients of biases and of γ and β.
//
// First, a thread adds up CHUNK rows of one column, and leaves the sum in `partial` (chunks,
// stride), where many such sums lie side by side; then `finish` adds the chunks, all columns of
// all sums at once. No atomic additions: the bytes do not depend on chance.
#include "half.cuh"
#include "storage.cuh"
#include "keep.cuh"
#include "in_flight.cuh"
#include "chunk.cuh"

// Σ x, into the columns from `place` on.
extern "C" __global__ void sum_columns(
    const stored* x, float* partial, unsigned long long stride, unsigned long long place,
    unsigned long long rows, unsigned long long width) {
    Column c = column_of(rows, width);
    if (c.end == 0) return;
    x += c.first;
    float sum = 0;
    for_each<8>(
        0u, c.end, (unsigned)width,
        [&](unsigned i) { return x[i]; },
        [&](unsigned, stored z) { sum += get(z); });
    partial[c.chunk * stride + place + c.column] = sum;
}

struct Given {
    float dy, xhat;
    bool stays;
    float dx;
};

// dγ = Σ dy·x̂ into the columns from `place` on, dβ = Σ dy into those after them; dy passes the
// dropout `after` first, where there is one. Where dx is given, Σ dx into those from place_dx on.
extern "C" __global__ void sum_norm_columns(
    const float* dy, const unsigned short* after, unsigned long long first, float scale,
    const float* xhat, const stored* dx, unsigned long long place_dx, float* partial,
    unsigned long long stride, unsigned long long place, unsigned long long rows,
    unsigned long long width) {
    Column c = column_of(rows, width);
    if (c.end == 0) return;
    Keep keep = decisions(after, first + c.first);
    dy += c.first;
    xhat += c.first;
    if (dx != nullptr) dx += c.first;
    float dgamma = 0, dbeta = 0, dbias = 0;
    for_each<8>(
        0u, c.end, (unsigned)width,
        [&](unsigned i) {
            return Given{dy[i], xhat[i], kept(keep, i), dx == nullptr ? 0.0f : get(dx[i])};
        },
        [&](unsigned, Given given) {
            float d = given.stays ? given.dy * scale : 0.0f;
            dgamma += d * given.xhat;
            dbeta += d;
            dbias += given.dx;
        });
    partial[c.chunk * stride + place + c.column] = dgamma;
    partial[c.chunk * stride + place + width + c.column] = dbeta;
    if (dx != nullptr) partial[c.chunk * stride + place_dx + c.column] = dbias;
}

// sums (columns,) ← Σ over the chunks of partial (chunks, columns), of which the columns from
// `rest` on have `fewer` alone.
extern "C" __global__ void finish(
    const float* partial, float* sums, unsigned long long chunks, unsigned long long columns,
    unsigned long long rest, unsigned long long fewer) {
    unsigned long long column = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    if (column >= rest) chunks = fewer;
    float sum = 0;
    for_each<16>(
        column, chunks * columns, columns,
        [&](unsigned long long i) { return partial[i]; },
        [&](unsigned long long, float x) { sum += x; });
    sums[column] = sum;
}
