// Dropout decisions as bits, 16 to a word, as the kernel keep_bits writes them.

// Those from one on. No words: all are kept.
struct Keep {
    const unsigned short* words;
    unsigned first;  // the bit of decision 0
};

__device__ Keep decisions(const unsigned short* words, unsigned long long first) {
    if (words == nullptr) return Keep{nullptr, 0};
    return Keep{words + first / 16, (unsigned)(first % 16)};
}

__device__ bool kept(Keep keep, unsigned i) {
    i += keep.first;
    return keep.words == nullptr || keep.words[i / 16] >> i % 16 & 1;
}
