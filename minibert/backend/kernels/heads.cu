// Packed rows, heads side by side ↔ the rows of squares (squares.cuh), head after head, which
// strided products serve: rows (T, parts·N·D) ↔ heads (parts, N·`all`, D), `all` the sum of S. What
// lies behind a sequence's end in its square is zero. Where `slots` (T,) is given, rows has some of
// the T rows alone: row t is its row slots[t], or not there (−1) and zero in the squares.
//
// One warp a place (g, i), i below the largest S, `most`. No division in the loops.
#include "half.cuh"
#include "storage.cuh"
#include "warp.cuh"
#include "squares.cuh"
#include "in_flight.cuh"

// The row of place (g, i), or −1.
__device__ long long row_of(const Square& s, unsigned long long i, const long long* slots) {
    if (i >= s.n) return -1;
    return slots == nullptr ? (long long)(s.start + i) : slots[s.start + i];
}

// heads ← rows + bias (parts·N·D,), which may be missing.
extern "C" __global__ void split_heads(
    const stored* rows, const float* bias, stored* heads, const long long* table,
    const long long* slots, unsigned long long parts, unsigned long long G, unsigned long long most,
    unsigned long long all, unsigned long long N, unsigned long long D) {
    unsigned long long place = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (place >= G * most) return;
    unsigned long long i = place % most;
    Square s = square_of(table, G, place / most);
    if (i >= s.S) return;
    long long at = row_of(s, i, slots);
    bool real = at >= 0;
    rows += (real ? at : 0) * parts * N * D;
    heads += (s.rows_before * N + i) * D;
    unsigned apart = (unsigned)(s.S * D);  // from a head to the next
    for (unsigned long long part = 0; part < parts; ++part) {
        for (unsigned d = threadIdx.x % LANES; d < D; d += LANES) {
            for_each<4>(
                0u, (unsigned)N, 1u,
                [&](unsigned h) {
                    float x = real ? get(rows[h * (unsigned)D + d]) : 0.0f;
                    return real && bias != nullptr ? x + bias[h * (unsigned)D + d] : x;
                },
                [&](unsigned h, float x) { put(heads[h * apart + d], x); });
        }
        rows += N * D;
        if (bias != nullptr) bias += N * D;
        heads += all * N * D;
    }
}

// rows ← heads, for the places that have a row.
extern "C" __global__ void merge_heads(
    const stored* heads, stored* rows, const long long* table, const long long* slots,
    unsigned long long parts, unsigned long long G, unsigned long long most, unsigned long long all,
    unsigned long long N, unsigned long long D) {
    unsigned long long place = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (place >= G * most) return;
    unsigned long long i = place % most;
    Square s = square_of(table, G, place / most);
    long long at = row_of(s, i, slots);
    if (at < 0) return;
    rows += at * parts * N * D;
    heads += (s.rows_before * N + i) * D;
    unsigned apart = (unsigned)(s.S * D);
    for (unsigned long long part = 0; part < parts; ++part) {
        for (unsigned d = threadIdx.x % LANES; d < D; d += LANES) {
            for_each<4>(
                0u, (unsigned)N, 1u, [&](unsigned h) { return heads[h * apart + d]; },
                [&](unsigned h, stored x) { rows[h * (unsigned)D + d] = x; });
        }
        rows += N * D;
        heads += all * N * D;
    }
}
