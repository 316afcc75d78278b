// How activations between products are stored: float32, or 16 bits that are float32 in registers.
//
// `stored` is STORAGE, which the host defines as float, Half or Bfloat. Arithmetic is in float32.

struct Half {  // IEEE binary16
    unsigned short bits;
};

struct Bfloat {  // the upper half of a float32
    unsigned short bits;
};

typedef STORAGE stored;

__device__ float get(const float& x) { return x; }

__device__ float get(const Half& x) { return half_to_float(x.bits); }

__device__ float get(const Bfloat& x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ void put(float& y, float x) { y = x; }

__device__ void put(Half& y, float x) { y.bits = float_to_half(x); }

// To the nearest, ties to even; a NaN keeps its upper half, and stays one.
__device__ void put(Bfloat& y, float x) {
    unsigned bits = __float_as_uint(x);
    y.bits = x != x ? (bits >> 16 | 0x40) : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
