// Memory answers after hundreds of cycles. A thread that reads an element, writes what it makes of
// it and only then reads the next waits once for each: the compiler may not read ahead by itself,
// since for all it knows what is written is what is read next.

// use(i, load(i)) for i = first, first + step, … below end; of AT_ONCE of them, all are loaded
// before the first is used. (Behind the end a load repeats end − 1: a branch would make it wait.)
// More at once take more registers, of which a multiprocessor has 64 K for all its threads.
template <int AT_ONCE, typename Index, typename Load, typename Use>
__device__ void for_each(Index first, Index end, Index step, Load load, Use use) {
    for (; first < end; first += AT_ONCE * step) {
        decltype(load(first)) loaded[AT_ONCE];
#pragma unroll
        for (int n = 0; n < AT_ONCE; ++n) {
            Index i = first + n * step;
            loaded[n] = load(i < end ? i : end - 1);
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE; ++n) {
            Index i = first + n * step;
            if (i < end) use(i, loaded[n]);
        }
    }
}
