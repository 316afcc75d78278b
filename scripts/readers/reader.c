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
    if (!found) { fprintf(stderr, "the trace has no %s\n", name); exit(2); }
    return found + strlen(key);
}

/* A tensor's first byte and, in `bytes`, its size. */
static void *tensor(const char *name, size_t *bytes) {
    unsigned long long begin, end;
    char *offsets = strstr(entry(header, name), "\"data_offsets\":[");
    if (sscanf(offsets, "\"data_offsets\":[%llu,%llu]", &begin, &end) != 2) exit(2);
    if (bytes) *bytes = end - begin;
    return buffer + begin;
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

    size_t width, tokens;
    double *weight = tensor("weight/bert.embeddings.LayerNorm.weight", &width);
    double *bias = tensor("weight/bert.embeddings.LayerNorm.bias", NULL);
    double *x = tensor("activation/bert.embeddings.sum", NULL);
    double *golden = tensor("activation/bert.embeddings.LayerNorm", NULL);
    long long *mask = tensor("input/attention_mask", &tokens);
    int H = width / sizeof(double), T = tokens / sizeof(long long);

    double difference = 0, norm = 0, *y = malloc(width);
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
    char *place = strstr(entry(json, "activation/bert.embeddings.LayerNorm"), "\"budget_float32\":");
    double budget = atof(place + strlen("\"budget_float32\":")) * ldexp(1, -29);  /* float64 */
    printf("activation/bert.embeddings.LayerNorm: error %.1e, budget %.1e\n", error, budget);
    return error > budget;
}
