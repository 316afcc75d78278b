// Cross-entropy and its gradient in one launch, as layers/losses.py defines them. One warp a row.
#include "warp.cuh"
#include "in_flight.cuh"

// losses (rows,): −log softmax(logits)[label]·weight, 0 where the label is −100. gradient (rows,
// classes), if wanted: (softmax − one-hot)·weight.
extern "C" __global__ void cross_entropy(
    const float* logits, const long long* labels, float weight, float* losses, float* gradient,
    unsigned long long rows, unsigned long long classes) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= rows) return;
    unsigned lane = threadIdx.x % LANES;
    long long label = labels[row];
    if (label == -100) {
        weight *= 0.0f;  // NaN, where there are no labels at all, stays
        label = 0;
    }
    logits += row * classes;
    auto logit = [&](unsigned k) { return logits[k]; };
    float most = LOWEST, sum = 0;
    for_each<8>(lane, (unsigned)classes, LANES, logit, [&](unsigned, float x) {
        most = fmaxf(most, x);
    });
    most = warp_max(most);
    for_each<8>(lane, (unsigned)classes, LANES, logit, [&](unsigned, float x) {
        sum += expf(x - most);
    });
    sum = warp_sum(sum);
    if (lane == 0) losses[row] = weight == 0 ? 0.0f : (logf(sum) - (logits[label] - most)) * weight;
    if (gradient == nullptr) return;
    gradient += row * classes;
    for_each<8>(lane, (unsigned)classes, LANES, logit, [&](unsigned k, float x) {
        float p = expf(x - most) / sum;
        gradient[k] = weight == 0 ? 0.0f : (p - ((long long)k == label ? 1.0f : 0.0f)) * weight;
    });
}
