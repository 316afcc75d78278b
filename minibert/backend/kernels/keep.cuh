// Dropout decisions as bits, 16 to a word, as the kernel keep_bits writes them.

// Whether element `place` is kept; without words all are.
__device__ bool kept(const unsigned short* words, unsigned long long place) {
    return words == nullptr || words[place / 16] >> place % 16 & 1;
}
