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

// xhat (H,) holds z, and is normalised in place; y ← γ·x̂ + β, once more in 16 bits where y_stored
// is wanted. With dropout behind the norm (the embeddings), `keep` says what stays of y.
__device__ void normalise(
    float* xhat, float sum, const float* gamma, const float* beta, float eps, float* rstd,
    float* y, stored* y_stored, Keep keep, float scale, unsigned H) {
    unsigned lane = threadIdx.x % LANES;
    float mean = warp_sum(sum) / H, squares = 0;
    for_each<4>(
        lane, H, LANES, [&](unsigned i) { return xhat[i] - mean; },
        [&](unsigned, float centred) { squares += centred * centred; });
    float r = 1.0f / sqrtf(warp_sum(squares) / H + eps);
    if (lane == 0) *rstd = r;
    for_each<4>(
        lane, H, LANES,
        [&](unsigned i) { return Scaled{xhat[i], gamma[i], beta[i], kept(keep, i)}; },
        [&](unsigned i, Scaled given) {
            float n = (given.x - mean) * r;
            float out = given.stays ? (n * given.gamma + given.beta) * scale : 0.0f;
            xhat[i] = n;
            y[i] = out;
            if (y_stored != nullptr) put(y_stored[i], out);
        });
}

// y = LN(dropout(x + bias) + residual). bias, residual, keep and y_stored may be missing. Element i
// of x is decision first + i of `keep`; scale is 1/(1 − p̂). Where `chosen` (rows,) is given, x's
// row r is row chosen[r] there; where `from` (rows,) is given, it is row from[r] of the residual.
extern "C" __global__ void add_norm_forward(
    const stored* x, const float* bias, const float* residual, const long long* from,
    const unsigned short* keep, unsigned long long first, float scale, const long long* chosen,
    const float* gamma, const float* beta, float eps, float* y, stored* y_stored, float* xhat,
    float* rstd, unsigned long long rows, unsigned long long width) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= rows) return;
    unsigned H = (unsigned)width;
    Keep stays = decisions(keep, first + (chosen == nullptr ? row : chosen[row]) * width);
    if (residual != nullptr) residual += (from == nullptr ? row : from[row]) * width;
    if (y_stored != nullptr) y_stored += row * width;
    x += row * width;
    xhat += row * width;
    float sum = 0;
    for_each<4>(
        threadIdx.x % LANES, H, LANES,
        [&](unsigned i) {
            float z = get(x[i]);
            if (bias != nullptr) z += bias[i];
            z = kept(stays, i) ? z * scale : 0.0f;
            return residual == nullptr ? z : z + residual[i];
        },
        [&](unsigned i, float z) {
            xhat[i] = z;
            sum += z;
        });
    normalise(
        xhat, sum, gamma, beta, eps, rstd + row, y + row * width, y_stored, Keep{nullptr, 0}, 1.0f,
        H);
}

// y = dropout(LN(word[id] + position[id] + type[id])), ids (rows,).
extern "C" __global__ void embeddings_forward(
    const float* word, const float* position, const float* type, const long long* input_ids,
    const long long* position_ids, const long long* type_ids, const unsigned short* keep,
    unsigned long long first, float scale, const float* gamma, const float* beta, float eps,
    float* y, float* xhat, float* rstd, unsigned long long rows, unsigned long long width) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= rows) return;
    unsigned H = (unsigned)width;
    word += input_ids[row] * width;
    position += position_ids[row] * width;
    type += type_ids[row] * width;
    xhat += row * width;
    float sum = 0;
    for_each<4>(
        threadIdx.x % LANES, H, LANES,
        [&](unsigned i) { return word[i] + position[i] + type[i]; },
        [&](unsigned i, float z) {
            xhat[i] = z;
            sum += z;
        });
    normalise(
        xhat, sum, gamma, beta, eps, rstd + row, y + row * width, nullptr,
        decisions(keep, first + row * width), scale, H);
}

struct Upstream {
    float dxhat, xhat;
    bool stays;
};

// dz = r·(dx̂ − mean(dx̂) − x̂·mean(x̂·dx̂)) with dx̂ = dy·γ, and, where dx is wanted, dx =
// dropout(dz). `after` is the dropout of y (the embeddings'), `keep` that of x; one of them, at
// least, is missing. Where `slots` (places,) is given, dz has a row for each place: that of row
// slots[place], or zero (−1).
extern "C" __global__ void add_norm_backward(
    const float* dy, const unsigned short* after, const float* xhat, const float* rstd,
    const float* gamma, const unsigned short* keep, unsigned long long first, float scale,
    const long long* chosen, const long long* slots, float* dz, stored* dx,
    unsigned long long places, unsigned long long width) {
    unsigned long long place = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (place >= places) return;
    unsigned lane = threadIdx.x % LANES, H = (unsigned)width;
    long long row = slots == nullptr ? (long long)place : slots[place];
    dz += place * width;
    if (row < 0) {
        for (unsigned i = lane; i < H; i += LANES) dz[i] = 0.0f;
        return;
    }
    first += (chosen == nullptr ? row : chosen[row]) * width;
    Keep stays_after = decisions(after, first), stays = decisions(keep, first);
    dy += row * width;
    xhat += row * width;
    if (dx != nullptr) dx += row * width;
    auto given = [&](unsigned i) {
        float dxhat = dy[i] * gamma[i];
        if (after != nullptr) dxhat = kept(stays_after, i) ? dxhat * scale : 0.0f;
        return Upstream{dxhat, xhat[i], kept(stays, i)};
    };
    float r = rstd[row], sum = 0, along = 0;
    for_each<4>(lane, H, LANES, given, [&](unsigned, Upstream u) {
        sum += u.dxhat;
        along += u.dxhat * u.xhat;
    });
    sum = warp_sum(sum) / H;
    along = warp_sum(along) / H;
    for_each<4>(lane, H, LANES, given, [&](unsigned i, Upstream u) {
        float d = r * (u.dxhat - sum - u.xhat * along);
        dz[i] = d;
        if (dx != nullptr) put(dx[i], u.stays ? d * scale : 0.0f);
    });
}
