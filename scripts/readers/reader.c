/* Check your own C layer against a golden trace, with nothing but the C library.

       cc -O2 scripts/readers/reader.c -lm -o reader && ./reader tests/fixtures/nano [EPS]

   The layer here is the embeddings' layer norm; put yours in its place. (Little-endian machines.) */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *header, *buffer, *json;

static char *read_file(const char *path, const char *suffix) {
    char name[4096];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    FILE *file = fopen(name, "rb");
    if (!file) { perror(name); exit(2); }
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *data = malloc(size + 1);
    if (!data || fread(data, 1, size, file) != (size_t)size) { perror(name); exit(2); }
    data[size] = 0;
    fclose(file);
    return data;
}

/* What follows "name": in some JSON. A trace's names hold no character that JSON escapes. */
static char *entry(char *text, const char *name) {
    char key[512];
    snprintf(key, sizeof key, "\"%s\":", name);
    char *found = strstr(text, key);
    if (!found) {
        fprintf(stderr, "the trace has no %s: of a checkpoint, make it with trace --store_weights\n", name);
        exit(2);
    }
    return found + strlen(key);
}

/* What stands behind "key": in the entry, a string or a number; NULL if there is none. */
static char *field(char *text, const char *name, const char *key) {
    char *start = entry(text, name), *found = strstr(start, key);
    return found && found < strchr(start, '}') ? found + strlen(key) : NULL;
}

/* A tensor's numbers, F64, F32 or I64, as doubles, and in `count` how many. */
static double *tensor(const char *name, int *count) {
    unsigned long long begin, end;
    char *dtype = field(header, name, "\"dtype\":\""), *offsets = field(header, name, "\"data_offsets\":[");
    if (!dtype || !offsets || sscanf(offsets, "%llu,%llu]", &begin, &end) != 2) exit(2);
    if (field(json, name, "\"stride\":")) {
        fprintf(stderr, "%s is thinned: make the trace without --limit\n", name);
        exit(2);
    }
    int single = !strncmp(dtype, "F32", 3), whole = !strncmp(dtype, "I64", 3);
    *count = (int)((end - begin) / (single ? 4 : 8));
    double *numbers = malloc(*count * sizeof(double));
    if (!numbers) exit(2);
    for (int i = 0; i < *count; i++) {
        char *at = buffer + begin + (size_t)i * (single ? 4 : 8);
        float f;
        long long n;
        if (single) { memcpy(&f, at, 4); numbers[i] = f; }
        else if (whole) { memcpy(&n, at, 8); numbers[i] = (double)n; }
        else memcpy(&numbers[i], at, 8);
    }
    return numbers;
}

static void my_layer(const double *x, const double *weight, const double *bias, double eps, int H,
                     double *y) {
    double mean = 0, variance = 0;
    for (int h = 0; h < H; h++) mean += x[h] / H;
    for (int h = 0; h < H; h++) variance += (x[h] - mean) * (x[h] - mean) / H;
    for (int h = 0; h < H; h++) y[h] = (x[h] - mean) / sqrt(variance + eps) * weight[h] + bias[h];
}

int main(int argc, char **argv) {
    if (argc < 2) { fprintf(stderr, "usage: reader TRACE [EPS]\n"); return 2; }
    double eps = argc > 2 ? atof(argv[2]) : 1e-12;
    char *file = read_file(argv[1], ".safetensors");
    json = read_file(argv[1], ".json");
    unsigned long long length;
    memcpy(&length, file, 8);
    header = malloc(length + 1);
    memcpy(header, file + 8, length);
    header[length] = 0;
    buffer = file + 8 + length;

    const char *name = "activation/bert.embeddings.LayerNorm";
    int H, T, size;
    double *weight = tensor("weight/bert.embeddings.LayerNorm.weight", &H);
    double *bias = tensor("weight/bert.embeddings.LayerNorm.bias", &H);
    double *x = tensor("activation/bert.embeddings.sum", &size);
    double *golden = tensor(name, &size);
    double *mask = tensor("input/attention_mask", &T);

    double difference = 0, norm = 0, *y = malloc(H * sizeof(double));
    for (int t = 0; t < T; t++) {
        if (!mask[t]) continue;
        my_layer(x + t * H, weight, bias, eps, H, y);
        for (int h = 0; h < H; h++) {
            double d = y[h] - golden[t * H + h];
            difference += d * d;
            norm += golden[t * H + h] * golden[t * H + h];
        }
    }
    double error = sqrt(difference / norm);
    int single = !strncmp(field(header, name, "\"dtype\":\""), "F32", 3);
    double budget = atof(field(json, name, "\"budget_float32\":")) * ldexp(1, single ? 0 : -29);
    printf("%s: error %.1e, budget %.1e\n", name, error, budget);
    return error > budget;
}
