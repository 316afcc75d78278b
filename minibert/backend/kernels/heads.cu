// Packed rows, heads side by side ↔ a square for each head of each sequence, which one strided
// product serves: rows (T, parts·N·D) ↔ heads (parts, G, N, S, D). Sequence g is the n[g] rows from
// start[g] on; what lies behind its end in the square is zero. Where `slots` (T,) is given, rows has
// some of the T rows alone: row t is its row slots[t], or not there (−1) and zero in the squares.
//
// One warp a place (g, i) of the squares. No division in the loops.
#include "half.cuh"
#include "storage.cuh"
#include "warp.cuh"

// The row of place (g, i), or −1.
__device__ long long row_of(
    unsigned long long g, unsigned long long i, const long long* start, const long long* n,
    const long long* slots) {
    if (i >= n[g]) return -1;
    long long row = start[g] + i;
    return slots == nullptr ? row : slots[row];
}

// heads ← rows + bias (parts·N·D,), which may be missing.
extern "C" __global__ void split_heads(
    const stored* rows, const float* bias, stored* heads, const long long* start,
    const long long* n, const long long* slots, unsigned long long parts, unsigned long long G,
    unsigned long long N, unsigned long long S, unsigned long long D) {
    unsigned long long place = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (place >= G * S) return;
    unsigned long long g = place / S, i = place % S;
    long long at = row_of(g, i, start, n, slots);
    bool real = at >= 0;
    const stored* row = rows + (real ? at : 0) * parts * N * D;
    for (unsigned long long part = 0; part < parts; ++part) {
        for (unsigned long long h = 0; h < N; ++h) {
            stored* head = heads + (((part * G + g) * N + h) * S + i) * D;
            for (unsigned long long d = threadIdx.x % LANES; d < D; d += LANES) {
                unsigned long long column = (part * N + h) * D + d;
                float x = real ? get(row[column]) : 0.0f;
                if (real && bias != nullptr) x += bias[column];
                put(head[d], x);
            }
        }
    }
}

// rows ← heads, for the places that have a row.
extern "C" __global__ void merge_heads(
    const stored* heads, stored* rows, const long long* start, const long long* n,
    const long long* slots, unsigned long long parts, unsigned long long G, unsigned long long N,
    unsigned long long S, unsigned long long D) {
    unsigned long long place = ((unsigned long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (place >= G * S) return;
    unsigned long long g = place / S, i = place % S;
    long long at = row_of(g, i, start, n, slots);
    if (at < 0) return;
    stored* row = rows + at * parts * N * D;
    for (unsigned long long part = 0; part < parts; ++part) {
        for (unsigned long long h = 0; h < N; ++h) {
            const stored* head = heads + (((part * G + g) * N + h) * S + i) * D;
            for (unsigned long long d = threadIdx.x % LANES; d < D; d += LANES) {
                row[(part * N + h) * D + d] = head[d];
            }
        }
    }
}
