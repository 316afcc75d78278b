// Scale, softmax and dropout of attention, and their backward, on the squares of squares.cuh, N of
// each: see layers/attention.py for the mathematics. One warp a row (g, head, i) of scores, i below
// the largest S, `most`.
//
// Sequence g has n real rows and columns; all beyond is written as zero. Its dropout decision for
// (head, query, key) is bit (head·n + query)·n + key of row g of keep (G, words).
//
// A warp reads a row in pieces of 32·P cells, P for each thread: all of a piece before any of it is
// used, and a row of one piece only once.
#include "half.cuh"
#include "storage.cuh"
#include "warp.cuh"
#include "keep.cuh"
#include "squares.cuh"

const int SHORT = 4, LONG = 8;  // P, for rows of up to 128 cells, and of more

struct Row {
    unsigned long long at;  // its first cell
    unsigned S, n;          // its cells (0: no such row), of them real ones (0: behind the end)
    Keep keep;
};

__device__ Row row_of(
    const long long* table, const unsigned short* keep, unsigned long long words,
    unsigned long long G, unsigned long long most, unsigned long long N) {
    unsigned long long row = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    unsigned long long i = row % most, h = row / most % N, g = row / most / N;
    if (g >= G) return Row{0, 0, 0, {nullptr, 0}};
    Square s = square_of(table, G, g);
    unsigned S = i < s.S ? (unsigned)s.S : 0, n = i < s.n ? (unsigned)s.n : 0;
    if (keep != nullptr) keep += g * words;
    return Row{s.cells_before * N + (h * s.S + i) * s.S, S, n,
               decisions(keep, (h * s.n + i) * s.n)};
}

// A row behind its sequence's end.
__device__ void clear(const Row& r, stored* probs, stored* dropped) {
    for (unsigned j = threadIdx.x % LANES; j < r.S; j += LANES) {
        put(probs[j], 0.0f);
        if (dropped != nullptr) put(dropped[j], 0.0f);
    }
}

// x ← this thread's cells of the piece that begins at cell first − lane.
template <int P>
__device__ void read(float (&x)[P], const float* scores, unsigned first, unsigned n) {
#pragma unroll
    for (int k = 0; k < P; ++k) {
        unsigned j = first + k * LANES;
        x[k] = scores[j < n ? j : n - 1];
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
        if (first + k * LANES >= n) x[k] = LOWEST;  // whose exponential is 0
    }
}

template <int P>
__device__ void exponentials(float (&x)[P], float highest, float root) {
#pragma unroll
    for (int k = 0; k < P; ++k) x[k] = expf((x[k] - highest) * root);
}

template <int P>
__device__ void forward(
    const Row& r, const float* scores, float root, float scale, stored* probs, stored* dropped) {
    const unsigned piece = P * LANES;
    unsigned lane = threadIdx.x % LANES;
    bool whole = r.S <= piece;
    float x[P], highest = LOWEST, sum = 0;
    for (unsigned first = lane; first < r.n + lane; first += piece) {
        read(x, scores, first, r.n);
        for (float score : x) highest = fmaxf(highest, score);
    }
    highest = warp_max(highest);
    for (unsigned first = lane; first < r.n + lane; first += piece) {
        if (!whole) read(x, scores, first, r.n);
        exponentials(x, highest, root);
        for (float part : x) sum += part;
    }
    float share = 1.0f / warp_sum(sum);
    for (unsigned first = lane; first < r.S + lane; first += piece) {
        if (!whole) {
            read(x, scores, first, r.n);
            exponentials(x, highest, root);
        }
#pragma unroll
        for (int k = 0; k < P; ++k) {
            unsigned j = first + k * LANES;
            if (j >= r.S) break;
            put(probs[j], x[k] * share);
            if (dropped == nullptr) continue;
            put(dropped[j], kept(r.keep, j) ? x[k] * share * scale : 0.0f);
        }
    }
}

// probs = softmax(root·scores), dropped = probs ⊙ mask. probs may be scores, dropped may be
// missing.
extern "C" __global__ void softmax_forward(
    const float* scores, float root, const unsigned short* keep, unsigned long long words,
    float scale, const long long* table, stored* probs, stored* dropped, unsigned long long G,
    unsigned long long most, unsigned long long N) {
    Row r = row_of(table, keep, words, G, most, N);
    scores += r.at;
    probs += r.at;
    if (dropped != nullptr) dropped += r.at;
    if (r.n == 0) return clear(r, probs, dropped);
    if (r.S <= SHORT * LANES) return forward<SHORT>(r, scores, root, scale, probs, dropped);
    forward<LONG>(r, scores, root, scale, probs, dropped);
}

template <int P>
struct Piece {
    float d[P], p[P];  // dP behind the dropout, P
    bool stays[P];
};

template <int P>
__device__ void read(
    Piece<P>& x, const float* ddropped, const stored* probs, const Row& r, unsigned first,
    float scale) {
#pragma unroll
    for (int k = 0; k < P; ++k) {
        unsigned j = first + k * LANES, cell = j < r.n ? j : r.n - 1;
        x.d[k] = ddropped[cell];
        x.p[k] = get(probs[cell]);
        x.stays[k] = kept(r.keep, cell);
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
        x.d[k] = x.stays[k] ? x.d[k] * scale : 0.0f;
        if (first + k * LANES >= r.n) x.p[k] = 0.0f;
    }
}

template <int P>
__device__ void backward(
    const Row& r, const float* ddropped, const stored* probs, float root, float scale,
    stored* dscores, stored* dropped) {
    const unsigned piece = P * LANES;
    unsigned lane = threadIdx.x % LANES;
    bool whole = r.S <= piece;
    Piece<P> x;
    float along = 0;
    for (unsigned first = lane; first < r.n + lane; first += piece) {
        read(x, ddropped, probs, r, first, scale);
        for (int k = 0; k < P; ++k) along += x.d[k] * x.p[k];
    }
    along = warp_sum(along);
    for (unsigned first = lane; first < r.S + lane; first += piece) {
        if (!whole) read(x, ddropped, probs, r, first, scale);
#pragma unroll
        for (int k = 0; k < P; ++k) {
            unsigned j = first + k * LANES;
            if (j >= r.S) break;
            put(dscores[j], root * x.p[k] * (x.d[k] - along));
            if (dropped != nullptr) put(dropped[j], x.stays[k] ? x.p[k] * scale : 0.0f);
        }
    }
}

// dscores = root·P ⊙ (dP − Σ dP·P) with dP = dropped′ ⊙ mask, and dropped = P ⊙ mask once more.
// dscores may be ddropped, dropped may be missing.
extern "C" __global__ void softmax_backward(
    const float* ddropped, const stored* probs, float root, const unsigned short* keep,
    unsigned long long words, float scale, const long long* table, stored* dscores, stored* dropped,
    unsigned long long G, unsigned long long most, unsigned long long N) {
    Row r = row_of(table, keep, words, G, most, N);
    ddropped += r.at;
    probs += r.at;
    dscores += r.at;
    if (dropped != nullptr) dropped += r.at;
    if (r.n == 0) return clear(r, dscores, dropped);
    if (r.S <= SHORT * LANES) {
        return backward<SHORT>(r, ddropped, probs, root, scale, dscores, dropped);
    }
    backward<LONG>(r, ddropped, probs, root, scale, dscores, dropped);
}
