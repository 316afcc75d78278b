// Sums of neighbouring rows, in a fixed order, without atomic additions.
//
// x (rows, width) lies in segments; starts[r] is the first row of r's segment. Every FAN_IN·step
// rows of a segment, counted from its start, one row gathers FAN_IN others, `step` apart. Launched
// with step = 1, FAN_IN, FAN_IN², … until a launch reaches across all rows, the first row of each
// segment ends as the sum of all its rows. A row that gathers is gathered by no other in the same
// launch, so it can be done in place.

const unsigned long long FAN_IN = 64;

template <typename T>
__device__ void add_segments(
    T* x, const long long* starts, unsigned long long rows, unsigned long long width,
    unsigned long long step) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    unsigned long long row = i / width;
    long long start = starts[row];
    if ((row - start) % (FAN_IN * step) != 0) return;
    T sum = x[i];
    for (unsigned long long n = 1; n < FAN_IN; ++n) {
        unsigned long long other = row + n * step;
        if (other >= rows || starts[other] != start) break;
        sum += x[i + n * step * width];
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
