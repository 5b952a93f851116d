/* libFuzzer's door to codec.c and mixing.c: bytes become calls of one codec's kernels, on arrays of exactly the lengths
 * that are said.
 *
 * Both are compiled into this file with AddressSanitizer and UndefinedBehaviorSanitizer, so that a byte read or
 * written beyond an array, a shift too far or an overflow ends the run. Each array is allocated by itself, at an odd
 * address where codes may lie at one. Beside that, promises are checked: what `largest` finds sound decodes to
 * numbers within its bound, what `encode` writes is sound, and lengths that do not fit are refused.
 *
 *     verb and codec | n (2 bytes) | start (2) | length (2) | lie about lengths (1) | bytes for codes, then floats
 *
 * gcc knows only the callback __sanitizer_cov_trace_pc, which libFuzzer gave up; tests/fuzz/codec.py renames it to
 * deca_cov, which counts each place in the table that libFuzzer watches.
 */

#define VERSIONS /* one version of each kernel: the choice among several is made before sanitizers are up */
#include "../../deca_node/numerics/codecs/codec.c"
#include "../../deca_node/numerics/codecs/mixing.c"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*one)(const uint8_t *data, size_t size));

typedef struct {
    Codec codec;
    bool (*encode)(const float *, size_t, uint8_t *, size_t);
    bool (*encode_difference)(const float *, size_t, float *, size_t, uint8_t *, size_t);
    bool (*decode)(const uint8_t *, size_t, size_t, float *, size_t);
    bool (*add_difference)(const uint8_t *, size_t, const uint8_t *, size_t, size_t, float *, size_t);
    bool (*largest)(const uint8_t *, size_t, size_t, float *, size_t);
    bool (*mix)(const Flow *, size_t, size_t, float *, size_t, float *, size_t, double *, size_t);
} Kernels;

#define OF(name) deca_##name##_encode, deca_##name##_encode_difference, deca_##name##_decode,                        \
                 deca_##name##_add_difference, deca_##name##_largest, deca_##name##_mix

typedef struct {
    const uint8_t *at;
    size_t left;
} Bytes;

static size_t number(Bytes *bytes, size_t width, size_t below) {
    size_t value = 0;
    for (; width > 0 && bytes->left > 0; width--, bytes->at++, bytes->left--) value = value << 8 | *bytes->at;
    return value % below;
}

static void check(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "codec.c breaks its promise: %s\n", what);
    abort();
}

/* Codes at an odd address, with nothing allowed behind them. */
static uint8_t *codes_of(Bytes *bytes, size_t nbytes, uint8_t **whole) {
    *whole = malloc(nbytes + 1);
    memset(*whole, 0, nbytes + 1);
    const size_t taken = smaller(nbytes, bytes->left);
    memcpy(*whole + 1, bytes->at, taken);
    bytes->at += taken;
    bytes->left -= taken;
    return *whole + 1;
}

static float *floats_of(Bytes *bytes, size_t n) {
    float *x = malloc(n * sizeof *x + 1);
    memset(x, 0, n * sizeof *x);
    const size_t taken = smaller(n * sizeof *x, bytes->left);
    memcpy(x, bytes->at, taken);
    bytes->at += taken;
    bytes->left -= taken;
    return x;
}

static bool all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static void check_decoded(const Kernels *k, const uint8_t *codes, size_t nbytes, size_t n) {
    float bounds[2] = {0.0f, 0.0f}, *y = malloc(n * sizeof *y + 1);
    if (k->largest(codes, nbytes, n, bounds, 2)) {
        const float bound = bounds[0];
        check(isfinite(bound) && bound >= 0.0f, "a bound that is no magnitude");
        check(bounds[1] >= 0.0f && bounds[1] <= bound, "a norm beyond the bound");
        check(k->decode(codes, nbytes, 0, y, n), "sound codes that do not decode");
        for (size_t i = 0; i < n; i++) check(fabsf(y[i]) <= bound, "a number beyond the bound");
    } else {
        k->decode(codes, nbytes, 0, y, n);
    }
    free(y);
}

static void fuzz_encode(const Kernels *k, Bytes *bytes, size_t n, size_t lie) {
    const size_t nbytes = bytes_of(k->codec, n) + lie;
    float *x = floats_of(bytes, n), *x_hat = floats_of(bytes, n);
    uint8_t *whole, *out = codes_of(bytes, nbytes, &whole);
    const bool done = k->encode(x, n, out, nbytes);
    check(!done || (lie == 0 && all_finite(x, n)), "encode took what it must refuse");
    check(done || lie || !all_finite(x, n), "encode refused what it must take");
    if (done) {
        float bound;
        check(k->largest(out, nbytes, n, &bound, 1), "what was encoded is not sound");
        check_decoded(k, out, nbytes, n);
    }
    k->encode_difference(x, n, x_hat, n + lie, out, nbytes);
    free(x);
    free(x_hat);
    free(whole);
}

/* Two flows of one edge, the second of which undoes what the first did to e, and with the same share takes x on. */
static void fuzz_mix(const Kernels *k, const uint8_t *theirs, const uint8_t *ours, size_t nbytes, size_t n, size_t start,
                     size_t length) {
    float *e = calloc(n + 1, sizeof *e), *x = calloc(length + 1, sizeof *x), *E = calloc(length + 1, sizeof *E);
    e = realloc(e, n * sizeof *e + 1);
    x = realloc(x, length * sizeof *x + 1);
    E = realloc(E, length * sizeof *E + 1);
    const Flow flows[] = {{theirs, nbytes, ours, nbytes, e, n, 0.5f, 0}, {ours, nbytes, theirs, nbytes, e, n, 0.25f, 1}};
    double sums[SUMS] = {0};
    const bool fits = k->mix(flows, 2, start, x, length, E, length, sums, SUMS);
    check(fits == (holds(k->codec, nbytes, start, length) && start + length <= n), "mix took or refused what it must not");
    for (size_t i = 0; fits && i < length; i++)
        check(memcmp(x + i, E + i, sizeof *x) == 0 || E[i] == 0.0f || isnan(E[i]), "x took something else than E");
    check(!k->mix(flows, 2, start, x, length, E, length + 1, sums, SUMS), "an E of another length was taken");
    free(e);
    free(x);
    free(E);
}

static void fuzz_decode(const Kernels *k, Bytes *bytes, size_t n, size_t start, size_t length, size_t lie) {
    const size_t nbytes = bytes_of(k->codec, n) + lie;
    uint8_t *whole_j, *whole_i, *theirs = codes_of(bytes, nbytes, &whole_j), *ours = codes_of(bytes, nbytes, &whole_i);
    float *y = malloc(length * sizeof *y + 1);
    memset(y, 0, length * sizeof *y);
    const bool fits = k->decode(theirs, nbytes, start, y, length);
    check(fits == k->add_difference(theirs, nbytes, ours, nbytes, start, y, length), "two kernels that disagree");
    if (!lie) check(fits || start + length > n, "decode refused what lies within");
    if (!lie) check_decoded(k, theirs, nbytes, n);
    fuzz_mix(k, theirs, ours, nbytes, n, start, length);
    float bound;
    check(!lie || !k->largest(theirs, nbytes, n, &bound, 1), "a length that does not fit was taken");
    free(y);
    free(whole_j);
    free(whole_i);
}

static int one(const uint8_t *data, size_t size) {
    static const Kernels kernels[] = {{INT8, OF(int8)}, {INT4, OF(int4)}, {TOPK, OF(topk)}};
    Bytes bytes = {data, size};
    const size_t choice = number(&bytes, 1, 6), n = number(&bytes, 2, 2600);
    const size_t start = number(&bytes, 2, 2700), length = number(&bytes, 2, 2700), lies = number(&bytes, 1, 256);
    const size_t lie = lies < 224 ? 0 : lies - 223;
    if (choice < 3)
        fuzz_decode(&kernels[choice], &bytes, n, start, length, lie);
    else
        fuzz_encode(&kernels[choice - 3], &bytes, n, lie);
    return 0;
}

int main(int argc, char **argv) { return LLVMFuzzerRunDriver(&argc, &argv, one); }
