// Scale, softmax and dropout of attention, and their backward, on squares (G, N, S, S): see
// heads.cu, and layers/attention.py for the mathematics. One warp a row of scores.
//
// Sequence g has n[g] real rows and columns; all beyond is written as zero. Its dropout decision
// for (head, query, key) is bit (head·n + query)·n + key of row g of keep (G, words).
#include "half.cuh"
#include "storage.cuh"
#include "warp.cuh"
#include "keep.cuh"

struct Row {
    unsigned long long g, at, n, bit;  // sequence, first cell, real columns (0: no real row), bit
};

__device__ Row row_of(
    unsigned long long row, const long long* n, unsigned long long N, unsigned long long S) {
    unsigned long long i = row % S, h = row / S % N, g = row / S / N, real = n[g];
    return Row{g, row * S, i < real ? real : 0, (h * real + i) * real};
}

// probs = softmax(root·scores), dropped = probs ⊙ mask. probs may be scores, dropped may be
// missing.
extern "C" __global__ void softmax_forward(
    const float* scores, float root, const unsigned short* keep, unsigned long long words,
    float scale, const long long* n, stored* probs, stored* dropped, unsigned long long G,
    unsigned long long N, unsigned long long S) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= G * N * S) return;
    Row r = row_of(row, n, N, S);
    unsigned lane = threadIdx.x % LANES;
    float most = LOWEST, sum = 0;
    for (unsigned long long j = lane; j < r.n; j += LANES) most = fmaxf(most, scores[r.at + j]);
    most = warp_max(most);
    for (unsigned long long j = lane; j < r.n; j += LANES) {
        sum += expf((scores[r.at + j] - most) * root);
    }
    sum = warp_sum(sum);
    if (keep != nullptr) keep += r.g * words;
    for (unsigned long long j = lane; j < S; j += LANES) {
        float p = j < r.n ? expf((scores[r.at + j] - most) * root) / sum : 0.0f;
        put(probs[r.at + j], p);
        if (dropped != nullptr) {
            bool stays = j < r.n && kept(keep, r.bit + j);
            put(dropped[r.at + j], stays ? p * scale : 0.0f);
        }
    }
}

// dscores = root·P ⊙ (dP − Σ dP·P) with dP = dropped′ ⊙ mask, and dropped = P ⊙ mask once more.
// dscores may be ddropped, dropped may be missing.
extern "C" __global__ void softmax_backward(
    const float* ddropped, const stored* probs, float root, const unsigned short* keep,
    unsigned long long words, float scale, const long long* n, stored* dscores, stored* dropped,
    unsigned long long G, unsigned long long N, unsigned long long S) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (row >= G * N * S) return;
    Row r = row_of(row, n, N, S);
    unsigned lane = threadIdx.x % LANES;
    if (keep != nullptr) keep += r.g * words;
    float along = 0;
    for (unsigned long long j = lane; j < r.n; j += LANES) {
        float d = kept(keep, r.bit + j) ? ddropped[r.at + j] * scale : 0.0f;
        along += d * get(probs[r.at + j]);
    }
    along = warp_sum(along);
    for (unsigned long long j = lane; j < S; j += LANES) {
        bool real = j < r.n, stays = real && kept(keep, r.bit + j);
        float p = real ? get(probs[r.at + j]) : 0.0f;
        float d = stays ? ddropped[r.at + j] * scale : 0.0f;
        put(dscores[r.at + j], root * p * (d - along));
        if (dropped != nullptr) put(dropped[r.at + j], stays ? p * scale : 0.0f);
    }
}
