// Dropout, residual and layer norm in one visit, as layers/add_norm.py and layers/layer_norm.py
// define them; the sum of embeddings in front of a layer norm, as layers/embeddings.py.
//
// One warp a row of `width` features. Statistics are two sums, of x and of (x − μ)², in float32.
#include "half.cuh"
#include "storage.cuh"
#include "warp.cuh"
#include "keep.cuh"
#include "in_flight.cuh"

struct Scaled {
    float x, gamma, beta;
    bool stays;
};

// xhat (width,) holds z, and is normalised in place; y ← γ·x̂ + β, once more in 16 bits where
// y_stored is wanted. With dropout behind the norm (the embeddings), `keep` says what stays of y.
__device__ void normalise(
    float* xhat, float sum, const float* gamma, const float* beta, float eps, float* rstd,
    float* y, stored* y_stored, const unsigned short* keep, unsigned long long first, float scale,
    unsigned long long width) {
    unsigned lane = threadIdx.x % LANES;
    float mean = warp_sum(sum) / width, squares = 0;
    for (unsigned long long i = lane; i < width; i += LANES) {
        float centred = xhat[i] - mean;
        squares += centred * centred;
    }
    float r = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    if (lane == 0) *rstd = r;
    for_each(
        lane, width, LANES,
        [&](unsigned long long i) {
            return Scaled{xhat[i], gamma[i], beta[i], kept(keep, first + i)};
        },
        [&](unsigned long long i, Scaled given) {
            float n = (given.x - mean) * r;
            float out = given.stays ? (n * given.gamma + given.beta) * scale : 0.0f;
            xhat[i] = n;
            y[i] = out;
            if (y_stored != nullptr) put(y_stored[i], out);
        });
}

// y = LN(dropout(x + bias) + residual). bias, residual, keep and y_stored may be missing. Element i
// of x is decision first + i of `keep`; scale is 1/(1 − p̂). Where `chosen` (rows,) is given, x's row
// r is row chosen[r] there; where `from` (rows,) is given, it is row from[r] of the residual.
extern "C" __global__ void add_norm_forward(
    const stored* x, const float* bias, const float* residual, const long long* from,
    const unsigned short* keep, unsigned long long first, float scale, const long long* chosen,
    const float* gamma, const float* beta, float eps, float* y, stored* y_stored, float* xhat,
    float* rstd, unsigned long long rows, unsigned long long width) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= rows) return;
    unsigned long long at = row * width;
    first += (chosen == nullptr ? row : chosen[row]) * width;
    if (residual != nullptr) residual += (from == nullptr ? row : from[row]) * width;
    float sum = 0;
    for_each(
        threadIdx.x % LANES, width, LANES,
        [&](unsigned long long i) {
            float z = get(x[at + i]);
            if (bias != nullptr) z += bias[i];
            z = kept(keep, first + i) ? z * scale : 0.0f;
            return residual == nullptr ? z : z + residual[i];
        },
        [&](unsigned long long i, float z) {
            xhat[at + i] = z;
            sum += z;
        });
    normalise(
        xhat + at, sum, gamma, beta, eps, rstd + row, y + at,
        y_stored == nullptr ? nullptr : y_stored + at, nullptr, 0, 1.0f, width);
}

// y = dropout(LN(word[id] + position[id] + type[id])), ids (rows,).
extern "C" __global__ void embeddings_forward(
    const float* word, const float* position, const float* type, const long long* input_ids,
    const long long* position_ids, const long long* type_ids, const unsigned short* keep,
    unsigned long long first, float scale, const float* gamma, const float* beta, float eps,
    float* y, float* xhat, float* rstd, unsigned long long rows, unsigned long long width) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= rows) return;
    word += input_ids[row] * width;
    position += position_ids[row] * width;
    type += type_ids[row] * width;
    unsigned long long at = row * width;
    float sum = 0;
    for_each(
        threadIdx.x % LANES, width, LANES,
        [&](unsigned long long i) { return word[i] + position[i] + type[i]; },
        [&](unsigned long long i, float z) {
            xhat[at + i] = z;
            sum += z;
        });
    normalise(
        xhat + at, sum, gamma, beta, eps, rstd + row, y + at, nullptr, keep, first + at, scale,
        width);
}

struct Upstream {
    float dxhat, xhat;
    bool stays;
};

// dz = r·(dx̂ − mean(dx̂) − x̂·mean(x̂·dx̂)) with dx̂ = dy·γ, and, where dx is wanted, dx = dropout(dz).
// `after` is the dropout of y (the embeddings'), `keep` that of x; either may be missing. Where
// `slots` (places,) is given, dz has a row for each place: that of row slots[place], or zero (−1).
extern "C" __global__ void add_norm_backward(
    const float* dy, const unsigned short* after, const float* xhat, const float* rstd,
    const float* gamma, const unsigned short* keep, unsigned long long first, float scale,
    const long long* chosen, const long long* slots, float* dz, stored* dx,
    unsigned long long places, unsigned long long width) {
    unsigned long long place = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (place >= places) return;
    unsigned lane = threadIdx.x % LANES;
    long long row = slots == nullptr ? (long long)place : slots[place];
    dz += place * width;
    if (row < 0) {
        for (unsigned long long i = lane; i < width; i += LANES) dz[i] = 0.0f;
        return;
    }
    unsigned long long at = row * width;
    first += (chosen == nullptr ? row : chosen[row]) * width;
    auto given = [&](unsigned long long i) {
        float dxhat = dy[at + i] * gamma[i];
        if (after != nullptr) dxhat = kept(after, first + i) ? dxhat * scale : 0.0f;
        return Upstream{dxhat, xhat[at + i], kept(keep, first + i)};
    };
    float r = rstd[row], sum = 0, along = 0;
    for_each(lane, width, LANES, given, [&](unsigned long long, Upstream u) {
        sum += u.dxhat;
        along += u.dxhat * u.xhat;
    });
    sum = warp_sum(sum) / width;
    along = warp_sum(along) / width;
    for_each(lane, width, LANES, given, [&](unsigned long long i, Upstream u) {
        float d = r * (u.dxhat - sum - u.xhat * along);
        dz[i] = d;
        if (dx != nullptr) put(dx[at + i], u.stays ? d * scale : 0.0f);
    });
}
