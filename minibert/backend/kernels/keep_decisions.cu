// Dropout decisions by the rule of Backend.keep_decisions: one thread computes one Philox block.
//
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.

typedef unsigned long long word;

struct Block {
    word w[4];
};

__device__ Block philox4x64_10(Block c, word key0, word key1) {
    for (int round = 0; round < 10; ++round) {
        word high0 = __umul64hi(0xD2E7470EE14C6C93ull, c.w[0]);
        word low0 = 0xD2E7470EE14C6C93ull * c.w[0];
        word high1 = __umul64hi(0xCA5A826395121157ull, c.w[2]);
        word low1 = 0xCA5A826395121157ull * c.w[2];
        c = Block{{high1 ^ c.w[1] ^ key0, low1, high0 ^ c.w[3] ^ key1, low0}};
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return c;
}

// Block number `block` of a stream, counted from one, as NumPy's generator does.
__device__ Block draw(word block, word stream, word step, word seed, word site) {
    return philox4x64_10(Block{{block + 1, stream, step, 0}}, seed, site);
}

// One of a block's 16 decisions.
__device__ bool keeps(const Block& random, int piece, word threshold) {
    return (random.w[piece / 4] >> (16 * (piece % 4)) & 0xFFFF) >= threshold;
}

// All 16 as bits.
__device__ unsigned short all_of(const Block& random, word threshold) {
    unsigned bits = 0;
    for (int piece = 0; piece < 16; ++piece) {
        bits |= (unsigned)keeps(random, piece, threshold) << piece;
    }
    return bits;
}

// keep (count,): decisions first … first + count − 1 of the stream. Their first block is first/16;
// the threads of the grid serve the `blocks` blocks from there on.
extern "C" __global__ void keep_decisions(
    bool* keep, word seed, word site, word step, word stream, word first, word count,
    word threshold, word blocks) {
    word thread = (word)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= blocks) return;
    word block = first / 16 + thread;
    Block random = draw(block, stream, step, seed, site);
    for (int piece = 0; piece < 16; ++piece) {
        word place = 16 * block + piece - first;  // before `first` it wraps, and is ≥ count
        if (place < count) keep[place] = keeps(random, piece, threshold);
    }
}

// Decisions as bits, of rows and of attention's squares; either may be none. Word w of bits (sites,
// words) is block w + first/16 of stream 0 at site `site` + its row. Word w of square_bits (G,
// square_words) is block w of stream `stream` + starts[g] at site square_site, as far as decision
// counts[g].
extern "C" __global__ void keep_bits(
    unsigned short* bits, word site, word first, word threshold, word sites, word words,
    unsigned short* square_bits, const long long* starts, const long long* counts,
    word square_site, word stream, word square_threshold, word G, word square_words, word seed,
    word step) {
    word thread = (word)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread < sites * words) {
        Block random = draw(thread % words + first / 16, 0, step, seed, site + thread / words);
        bits[thread] = all_of(random, threshold);
        return;
    }
    thread -= sites * words;
    if (thread >= G * square_words) return;
    word g = thread / square_words, w = thread % square_words;
    if (16 * w >= (word)counts[g]) return;
    Block random = draw(w, stream + starts[g], step, seed, square_site);
    square_bits[thread] = all_of(random, square_threshold);
}
