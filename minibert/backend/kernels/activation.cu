// Bias and activation in one visit, as layers/activations.py defines them, and the backward of
// both. A thread serves one column of CHUNK rows: the bias is read once, its gradient is a sum on
// the way (the first half of columns.cu).
//
// erf and exp cost more than memory: the forward, which has erf at hand, leaves the slope.
#include "half.cuh"
#include "storage.cuh"
#include "in_flight.cuh"
#include "chunk.cuh"

const unsigned long long GELU = 0, GELU_NEW = 1;  // else ReLU

const float ROOT_HALF = 0.70710678118654752f;      // √½
const float DENSITY = 0.39894228040143268f;        // 1/√(2π)
const float C = 0.79788456080286536f, A = 0.044715f;  // √(2/π)

struct Value {
    float act, slope;
};

__device__ Value activate(float x, unsigned long long kind) {
    if (kind == GELU) {
        float Phi = 0.5f * (1.0f + erff(x * ROOT_HALF));
        return Value{x * Phi, Phi + x * (expf(-0.5f * x * x) * DENSITY)};
    }
    if (kind == GELU_NEW) {
        float t = tanhf(C * (x + A * x * x * x)), du = C * (1.0f + 3.0f * A * x * x);
        return Value{x * (0.5f * (1.0f + t)), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * du};
    }
    return x > 0 ? Value{x, 1.0f} : Value{0.0f, 0.0f};
}

// y = act(x + bias), and slope = act′(x + bias) if wanted, which may be x. No bias: 0.
extern "C" __global__ void activation_forward(
    const stored* x, const float* bias, stored* y, stored* slope, unsigned long long kind,
    unsigned long long rows, unsigned long long width) {
    Column c = column_of(
        (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x, rows, width);
    if (c.end == 0) return;
    float b = bias == nullptr ? 0.0f : bias[c.column];
    x += c.first;
    y += c.first;
    if (slope != nullptr) slope += c.first;
    for_each<8>(
        0u, c.end, (unsigned)width, [&](unsigned i) { return x[i]; },
        [&](unsigned i, stored z) {
            Value value = activate(get(z) + b, kind);
            put(y[i], value.act);
            if (slope != nullptr) put(slope[i], value.slope);
        });
}

struct Given {
    stored dy, slope;
};

// dx = dy·slope; Σ dx into `partial` (chunks, stride) from column `place` on, if wanted.
extern "C" __global__ void activation_backward(
    const stored* dy, const stored* slope, stored* dx, float* partial, unsigned long long stride,
    unsigned long long place, unsigned long long rows, unsigned long long width) {
    Column c = column_of(
        (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x, rows, width);
    if (c.end == 0) return;
    float sum = 0;
    dy += c.first;
    slope += c.first;
    dx += c.first;
    for_each<8>(
        0u, c.end, (unsigned)width, [&](unsigned i) { return Given{dy[i], slope[i]}; },
        [&](unsigned i, Given given) {
            float d = get(given.dy) * get(given.slope);
            put(dx[i], d);
            sum += d;
        });
    if (partial != nullptr) partial[c.chunk * stride + place + c.column] = sum;
}
