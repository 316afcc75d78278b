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

// keep (count,): decisions first … first + count − 1 of the stream. Their first block is first/16;
// the threads of the grid serve the `blocks` blocks from there on.
extern "C" __global__ void keep_decisions(
    bool* keep, word seed, word site, word step, word stream, word first, word count,
    word threshold, word blocks) {
    word thread = (word)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= blocks) return;
    word block = first / 16 + thread;
    // Counted from one, as NumPy's generator does.
    Block random = philox4x64_10(Block{{block + 1, stream, step, 0}}, seed, site);
    for (int piece = 0; piece < 16; ++piece) {
        word place = 16 * block + piece - first;  // before `first` it wraps, and is ≥ count
        if (place < count) {
            keep[place] = (random.w[piece / 4] >> (16 * (piece % 4)) & 0xFFFF) >= threshold;
        }
    }
}

// The same as bits: word w of row r of bits (rows, words) has 16 decisions, of block w + first/16.
// Where `starts` (rows,) is given they are of stream `stream` + starts[r], and the first counts[r]
// of them are wanted; else they are of `stream` at site `site` + r.
extern "C" __global__ void keep_bits(
    unsigned short* bits, const long long* starts, const long long* counts, word seed, word site,
    word step, word stream, word first, word threshold, word rows, word words) {
    word thread = (word)blockIdx.x * blockDim.x + threadIdx.x;
    word row = thread / words, block = first / 16 + thread % words;
    if (row >= rows) return;
    if (starts != nullptr) {
        if (16 * (thread % words) >= (word)counts[row]) return;
        stream += starts[row];
    } else {
        site += row;
    }
    Block random = philox4x64_10(Block{{block + 1, stream, step, 0}}, seed, site);
    unsigned kept = 0;
    for (int piece = 0; piece < 16; ++piece) {
        word drawn = random.w[piece / 4] >> (16 * (piece % 4)) & 0xFFFF;
        kept |= (unsigned)(drawn >= threshold) << piece;
    }
    bits[thread] = kept;
}
