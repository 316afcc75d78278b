// Scale, softmax and dropout of attention, and their backward, on the squares of squares.cuh, N of
// each: see layers/attention.py for the mathematics. One warp a row (g, head, i) of scores, i below
// the largest S, `most`.
//
// Sequence g has n real rows and columns; all beyond is written as zero. Its dropout decision for
// (head, query, key) is bit (head·n + query)·n + key of row g of keep (G, words).
#include "half.cuh"
#include "storage.cuh"
#include "warp.cuh"
#include "keep.cuh"
#include "squares.cuh"
#include "in_flight.cuh"

struct Row {
    unsigned long long at, S, n;  // first cell; cells, of them real ones (0: behind the end)
    const unsigned short* keep;
    unsigned long long bit;  // of the first cell
};

// S = 0: there is no such row.
__device__ Row row_of(
    const long long* table, const unsigned short* keep, unsigned long long words,
    unsigned long long G, unsigned long long most, unsigned long long N) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    unsigned long long i = row % most, h = row / most % N, g = row / most / N;
    if (g >= G) return Row{0, 0, 0, nullptr, 0};
    Square s = square_of(table, G, g);
    return Row{
        s.cells_before * N + (h * s.S + i) * s.S, i < s.S ? s.S : 0, i < s.n ? s.n : 0,
        keep == nullptr ? nullptr : keep + g * words, (h * s.n + i) * s.n};
}

// A row behind its sequence's end.
__device__ void clear(const Row& r, stored* probs, stored* dropped) {
    for (unsigned long long j = threadIdx.x % LANES; j < r.S; j += LANES) {
        put(probs[r.at + j], 0.0f);
        if (dropped != nullptr) put(dropped[r.at + j], 0.0f);
    }
}

// A score or the gradient of one, a probability, and whether dropout keeps it.
struct Cell {
    float x, p;
    bool stays;
};

// probs = softmax(root·scores), dropped = probs ⊙ mask. probs may be scores, dropped may be
// missing. (Behind the end the first cell is read, and not used.)
extern "C" __global__ void softmax_forward(
    const float* scores, float root, const unsigned short* keep, unsigned long long words,
    float scale, const long long* table, stored* probs, stored* dropped, unsigned long long G,
    unsigned long long most, unsigned long long N) {
    Row r = row_of(table, keep, words, G, most, N);
    if (r.n == 0) return clear(r, probs, dropped);
    unsigned lane = threadIdx.x % LANES;
    auto score = [&](unsigned long long j) { return scores[r.at + j]; };
    float highest = LOWEST, sum = 0;
    for_each(lane, r.n, LANES, score, [&](unsigned long long, float x) {
        highest = fmaxf(highest, x);
    });
    highest = warp_max(highest);
    for_each(lane, r.n, LANES, score, [&](unsigned long long, float x) {
        sum += expf((x - highest) * root);
    });
    sum = warp_sum(sum);
    auto cell = [&](unsigned long long j) {
        unsigned long long c = j < r.n ? j : 0;
        return Cell{scores[r.at + c], 0.0f, kept(r.keep, r.bit + c)};
    };
    for_each(lane, r.S, LANES, cell, [&](unsigned long long j, Cell c) {
        float p = j < r.n ? expf((c.x - highest) * root) / sum : 0.0f;
        put(probs[r.at + j], p);
        if (dropped != nullptr) put(dropped[r.at + j], c.stays ? p * scale : 0.0f);
    });
}

// dscores = root·P ⊙ (dP − Σ dP·P) with dP = dropped′ ⊙ mask, and dropped = P ⊙ mask once more.
// dscores may be ddropped, dropped may be missing.
extern "C" __global__ void softmax_backward(
    const float* ddropped, const stored* probs, float root, const unsigned short* keep,
    unsigned long long words, float scale, const long long* table, stored* dscores, stored* dropped,
    unsigned long long G, unsigned long long most, unsigned long long N) {
    Row r = row_of(table, keep, words, G, most, N);
    if (r.n == 0) return clear(r, dscores, dropped);
    unsigned lane = threadIdx.x % LANES;
    auto cell = [&](unsigned long long j) {
        unsigned long long c = j < r.n ? j : 0;
        return Cell{ddropped[r.at + c], get(probs[r.at + c]), kept(r.keep, r.bit + c)};
    };
    float along = 0;
    for_each(lane, r.n, LANES, cell, [&](unsigned long long, Cell c) {
        along += c.stays ? c.x * scale * c.p : 0.0f;
    });
    along = warp_sum(along);
    for_each(lane, r.S, LANES, cell, [&](unsigned long long j, Cell c) {
        float p = j < r.n ? c.p : 0.0f, d = c.stays ? c.x * scale : 0.0f;
        put(dscores[r.at + j], root * p * (d - along));
        if (dropped != nullptr) put(dropped[r.at + j], c.stays ? p * scale : 0.0f);
    });
}
