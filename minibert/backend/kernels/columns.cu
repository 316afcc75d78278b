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

// Where a thread's sums go: `partial` (chunks, stride).
struct Partial {
    float* at;
    unsigned long long stride;
};

__device__ void leave(Partial partial, Column c, unsigned long long place, float sum) {
    partial.at[c.chunk * partial.stride + place + c.column] = sum;
}

// Σ x, into the columns from `place` on.
__device__ void sum_columns(
    unsigned long long thread, const stored* x, Partial partial, unsigned long long place,
    unsigned long long rows, unsigned long long width) {
    Column c = column_of(thread, rows, width);
    if (c.end == 0) return;
    x += c.first;
    float sum = 0;
    for_each<8>(
        0u, c.end, (unsigned)width, [&](unsigned i) { return x[i]; },
        [&](unsigned, stored z) { sum += get(z); });
    leave(partial, c, place, sum);
}

struct Given {
    float dy, xhat;
    bool stays;
    float dx;
};

// dγ = Σ dy·x̂ into the columns from `place` on, dβ = Σ dy into those after them; dy passes the
// dropout `after` first, where there is one. Where dx is given, Σ dx into those from place_dx on.
__device__ void sum_norm_columns(
    unsigned long long thread, const float* dy, const unsigned short* after,
    unsigned long long first, float scale, const float* xhat, const stored* dx, Partial partial,
    unsigned long long place, unsigned long long place_dx, unsigned long long rows,
    unsigned long long width) {
    Column c = column_of(thread, rows, width);
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
    leave(partial, c, place, dgamma);
    leave(partial, c, place + width, dbeta);
    if (dx != nullptr) leave(partial, c, place_dx, dbias);
}

// Of one layer norm, with the dropout behind it.
extern "C" __global__ void norm_columns(
    const float* dy, const unsigned short* after, unsigned long long first, float scale,
    const float* xhat, float* partial, unsigned long long rows, unsigned long long width) {
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    sum_norm_columns(
        thread, dy, after, first, scale, xhat, nullptr, Partial{partial, 2 * width}, 0, 0, rows,
        width);
}

// Of an encoder layer: its two norms, with the biases in front of them, on `rows` rows, and the
// bias of queries, keys and values, 3·width columns on `all` rows. `place_…`: see above.
extern "C" __global__ void layer_columns(
    const float* dy, const float* xhat, const stored* dx, unsigned long long place,
    unsigned long long place_dx, const float* dh, const float* xhat_attention,
    const stored* dx_attention, unsigned long long place_attention,
    unsigned long long place_dx_attention, const stored* dqkv, unsigned long long place_dqkv,
    float* sums, unsigned long long stride, unsigned long long rows, unsigned long long all,
    unsigned long long width) {
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long a_norm = threads_for(rows, width);
    Partial partial{sums, stride};
    if (thread < a_norm) {
        sum_norm_columns(
            thread, dy, nullptr, 0, 1.0f, xhat, dx, partial, place, place_dx, rows, width);
    } else if (thread < 2 * a_norm) {
        sum_norm_columns(
            thread - a_norm, dh, nullptr, 0, 1.0f, xhat_attention, dx_attention, partial,
            place_attention, place_dx_attention, rows, width);
    } else {
        sum_columns(thread - 2 * a_norm, dqkv, partial, place_dqkv, all, 3 * width);
    }
}

// sums (columns,) ← Σ over the chunks of partial (chunks, columns), of which the columns from
// `rest` on have `fewer` alone; with `add` ≠ 0 it is added.
extern "C" __global__ void finish(
    const float* partial, float* sums, unsigned long long chunks, unsigned long long columns,
    unsigned long long rest, unsigned long long fewer, unsigned long long add) {
    unsigned long long column = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    if (column >= rest) chunks = fewer;
    float sum = 0;
    for_each<16>(
        column, chunks * columns, columns,
        [&](unsigned long long i) { return partial[i]; },
        [&](unsigned long long, float x) { sum += x; });
    sums[column] = add == 0 ? sum : sums[column] + sum;
}
