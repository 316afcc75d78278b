// A square of S × S scores for each head of each sequence, S one of a few sizes: where they lie.
//
// `table` (6, G), row by row: start[g], the first of the n[g] packed rows of sequence g; decisions
// (keep_decisions.cu's alone); S[g] ≥ n[g]; the sums of S and of S² over the sequences before it.

struct Square {
    unsigned long long start, n, S, rows_before, cells_before;
};

__device__ Square square_of(const long long* table, unsigned long long G, unsigned long long g) {
    table += g;
    return Square{
        (unsigned long long)table[0], (unsigned long long)table[G],
        (unsigned long long)table[3 * G], (unsigned long long)table[4 * G],
        (unsigned long long)table[5 * G]};
}
