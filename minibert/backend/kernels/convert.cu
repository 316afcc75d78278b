// float32 arrays added, or rounded to what products read.
#include "half.cuh"
#include "storage.cuh"

// y += x.
extern "C" __global__ void add(const float* x, float* y, unsigned long long size) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] += x[i];
}

// y ← five arrays, rounded, one after the other.
extern "C" __global__ void convert(
    const float* a, unsigned long long size_a, const float* b, unsigned long long size_b,
    const float* c, unsigned long long size_c, const float* d, unsigned long long size_d,
    const float* e, unsigned long long size_e, stored* y) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x, j = i;
    if (j < size_a) return put(y[i], a[j]);
    j -= size_a;
    if (j < size_b) return put(y[i], b[j]);
    j -= size_b;
    if (j < size_c) return put(y[i], c[j]);
    j -= size_c;
    if (j < size_d) return put(y[i], d[j]);
    j -= size_d;
    if (j < size_e) put(y[i], e[j]);
}
