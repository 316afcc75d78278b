// The error function, element by element. (cupyx.scipy.special.erf would return float16 as
// float64.)

extern "C" __global__ void erf_float32(const float* x, float* y, unsigned long long size) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = erff(x[i]);
}

extern "C" __global__ void erf_float64(const double* x, double* y, unsigned long long size) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = erf(x[i]);
}
