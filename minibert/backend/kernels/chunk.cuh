// Sums over rows are made of CHUNK rows at a time: a thread serves one column of one chunk.

const unsigned long long CHUNK = 64;

struct Column {
    unsigned long long chunk, column, first;  // first: of its elements, in the array (rows, width)
    unsigned end;  // they are first + 0, width, … below end; 0: none
};

__device__ Column column_of(
    unsigned long long thread, unsigned long long rows, unsigned long long width) {
    unsigned long long chunk = thread / width, column = thread % width, row = chunk * CHUNK;
    unsigned long long here = row >= rows ? 0 : rows - row < CHUNK ? rows - row : CHUNK;
    unsigned end = here == 0 ? 0 : (unsigned)((here - 1) * width + 1);
    return Column{chunk, column, row * width + column, end};
}

// How many threads serve all columns.
__device__ unsigned long long threads_for(unsigned long long rows, unsigned long long width) {
    return (rows + CHUNK - 1) / CHUNK * width;
}
