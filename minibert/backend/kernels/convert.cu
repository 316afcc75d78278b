// float32 arrays added, or rounded to what products read.
#include "half.cuh"
#include "storage.cuh"
#include "in_flight.cuh"

// y += x.
extern "C" __global__ void add(const float* x, float* y, unsigned long long size) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] += x[i];
}

// y ← five arrays, rounded, one after the other, by `threads` threads.
extern "C" __global__ void convert(
    const float* a, unsigned long long size_a, const float* b, unsigned long long size_b,
    const float* c, unsigned long long size_c, const float* d, unsigned long long size_d,
    const float* e, unsigned long long size_e, stored* y, unsigned long long threads) {
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    unsigned long long end_a = size_a, end_b = end_a + size_b, end_c = end_b + size_c,
                       end_d = end_c + size_d;
    for_each<8>(
        thread, end_d + size_e, threads,
        [&](unsigned long long i) {
            return *(i < end_a ? a + i
                   : i < end_b ? b + (i - end_a)
                   : i < end_c ? c + (i - end_b)
                   : i < end_d ? d + (i - end_c)
                               : e + (i - end_d));
        },
        [&](unsigned long long i, float x) { put(y[i], x); });
}
