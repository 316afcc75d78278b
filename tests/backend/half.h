// float16 by the rules of IEEE 754, where half.cuh has an instruction of the GPU.

static float half_to_float(unsigned short bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float x = exponent == 31 ? (fraction ? NAN : INFINITY)
              : exponent     ? ldexpf(1024 + fraction, exponent - 25)
                             : ldexpf(fraction, -24);
    return bits >> 15 ? -x : x;
}

static unsigned short float_to_half(float x) {
    unsigned short sign = signbit(x) ? 0x8000 : 0;
    float a = fabsf(x);
    if (a != a) return sign | 0x7E00;
    if (a >= 65520) return sign | 0x7C00;  // rounds to 65536, which is infinity
    int exponent;
    frexpf(a, &exponent);  // a < 2^exponent
    if (exponent < -13) exponent = -13;  // below 2^-14 the spacing stays at 2^-24
    // nearbyintf rounds to even; a carry runs on into the exponent, as it should.
    int steps = (int)nearbyintf(ldexpf(a, 11 - exponent));
    if (a == 0) return sign;
    return sign | (unsigned short)(((exponent + 13) << 10) + steps);
}
