// Sums over rows in a fixed order, in two launches: gradients of biases and of γ and β.
//
// First, a thread adds up CHUNK rows of one column, and leaves the sum in `partial` (chunks,
// stride), where many such sums lie side by side; then `finish` adds the chunks, all columns of
// all sums at once. No atomic additions: the bytes do not depend on chance.
#include "half.cuh"
#include "storage.cuh"
#include "keep.cuh"

const unsigned long long CHUNK = 64;

// Σ x, into the columns from `place` on.
extern "C" __global__ void sum_columns(
    const stored* x, float* partial, unsigned long long stride, unsigned long long place,
    unsigned long long rows, unsigned long long width) {
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long chunk = thread / width, column = thread % width;
    if (chunk * CHUNK >= rows) return;
    float sum = 0;
    for (unsigned long long row = chunk * CHUNK; row < rows && row < (chunk + 1) * CHUNK; ++row) {
        sum += get(x[row * width + column]);
    }
    partial[chunk * stride + place + column] = sum;
}

// dγ = Σ dy·x̂ into the columns from `place` on, dβ = Σ dy into those after them; dy passes the
// dropout `after` first, where there is one. Where dx is given, Σ dx into those from place_dx on.
extern "C" __global__ void sum_norm_columns(
    const float* dy, const unsigned short* after, unsigned long long first, float scale,
    const float* xhat, const stored* dx, unsigned long long place_dx, float* partial,
    unsigned long long stride, unsigned long long place, unsigned long long rows,
    unsigned long long width) {
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long chunk = thread / width, column = thread % width;
    if (chunk * CHUNK >= rows) return;
    float dgamma = 0, dbeta = 0, dbias = 0;
    for (unsigned long long row = chunk * CHUNK; row < rows && row < (chunk + 1) * CHUNK; ++row) {
        unsigned long long i = row * width + column;
        float d = dy[i];
        if (after != nullptr) d = kept(after, first + i) ? d * scale : 0.0f;
        dgamma += d * xhat[i];
        dbeta += d;
        if (dx != nullptr) dbias += get(dx[i]);
    }
    partial[chunk * stride + place + column] = dgamma;
    partial[chunk * stride + place + width + column] = dbeta;
    if (dx != nullptr) partial[chunk * stride + place_dx + column] = dbias;
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
    for (unsigned long long chunk = 0; chunk < chunks; ++chunk) {
        sum += partial[chunk * columns + column];
    }
    sums[column] = sum;
}
