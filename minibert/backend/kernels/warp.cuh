// A row is the work of one warp: 32 threads in step, which exchange numbers without shared memory.
//
// Every thread of a warp must reach each of these calls. In the exchange each pair adds the same
// two numbers, so all threads get the same bits.

const unsigned LANES = 32;
const unsigned ALL = 0xFFFFFFFF;
const float LOWEST = -3.402823466e38f;  // NVRTC has no INFINITY

__device__ float warp_sum(float x) {
    for (int apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

__device__ float warp_max(float x) {
    for (int apart = 16; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, apart));
    return x;
}
