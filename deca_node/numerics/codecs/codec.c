/* The int8, int4 and topk codecs over many groups: to and from bytes, differences, and the check of received codes.
 *
 * Every array comes with its length. If the lengths do not fit, a function returns false and changes nothing. No two
 * arguments overlap. groups.h handles a single group, and lists the rules that all of this code follows.
 */

#include "groups.h"

/* The version of all functions of this library, in all its files; storage/compiled.py loads no library with another. */
int deca_codec_interface(void) { return 3; }

INLINE bool encode(Codec codec, const float *restrict x, size_t n, uint8_t *restrict out, size_t nbytes) {
    if (bytes_of(codec, n) != nbytes) return false;
    for (; n >= codec.group; n -= codec.group, x += codec.group, out += row_bytes(codec, codec.group)) {
        if (!encode_group(codec, x, NULL, codec.group, out)) return false;
    }
    return n == 0 || encode_group(codec, x, NULL, n, out);
}

INLINE bool encode_difference(Codec codec, const float *restrict x, size_t n, float *restrict x_hat, size_t n_hat,
                              uint8_t *restrict out, size_t nbytes) {
    if (n_hat != n || bytes_of(codec, n) != nbytes) return false;
    const size_t group = codec.group;
    for (; n >= group; n -= group, x += group, x_hat += group, out += row_bytes(codec, group)) {
        if (!encode_group(codec, x, x_hat, codec.group, out)) return false;
    }
    return n == 0 || encode_group(codec, x, x_hat, n, out);
}

INLINE bool decode(Codec codec, const uint8_t *restrict bytes, size_t nbytes, size_t start, float *restrict y,
                   size_t n) {
    if (!holds(codec, nbytes, start, n)) return false;
    float q[GROUP_MAX];
    for (const size_t stop = start + n; start < stop;) {
        const size_t end = end_of_group(codec, start, stop), g = start / codec.group, lead = start % codec.group;
        if (whole_and_dense(codec, start, end)) {
            decode_group(codec, bytes, nbytes, g, y);
        } else {
            decode_group(codec, bytes, nbytes, g, q);
            for (size_t i = 0; i < end - start; i++) y[i] = q[lead + i];
        }
        y += end - start;
        start = end;
    }
    return true;
}

INLINE bool add_difference(Codec codec, const uint8_t *restrict theirs, size_t nbytes_j, const uint8_t *restrict ours,
                           size_t nbytes_i, size_t start, float *restrict e, size_t n) {
    if (!holds(codec, nbytes_j, start, n) || !holds(codec, nbytes_i, start, n)) return false;
    for (const size_t stop = start + n; start < stop;) {
        const size_t end = end_of_group(codec, start, stop);
        ask_ahead(e, codec.group);
        add_group(codec, theirs, nbytes_j, ours, nbytes_i, start, end, e);
        e += end - start;
        start = end;
    }
    return true;
}

/* bound[0] becomes a magnitude that no element exceeds. bound[1], if there is room for it, becomes the RMS over all
 * elements of the largest magnitude that each element's group may have. Returns false if the codes are malformed; the
 * caller's torch code then finds out why. */
INLINE bool largest(Codec codec, const uint8_t *restrict bytes, size_t nbytes, size_t n, float *restrict bound,
                    size_t bounds) {
    if (bounds < 1 || bounds > 2 || bytes_of(codec, n) != nbytes) return false;
    const size_t elements = n;
    uint32_t most = 0;
    double squares = 0.0;
    for (size_t width; n > 0; n -= width, bytes += row_bytes(codec, codec.group)) {
        width = smaller(n, codec.group);
        __builtin_prefetch((const void *)((uintptr_t)bytes + AHEAD_BYTES));
        const uint32_t found = checked_scale(codec, bytes, width);
        most = found > most ? found : most;
        float scale;
        memcpy(&scale, bytes, sizeof scale);
        squares += (double)scale * (double)scale * (double)sent(codec, width);
    }
    if (most >= INFINITY_BITS) return false;
    memcpy(bound, &most, sizeof most);
    *bound *= codec.q + 1.0f; /* exact, because the factor is a power of two */
    if (bounds == 2) bound[1] = elements ? (float)(codec.q * sqrt(squares / (double)elements)) : 0.0f;
    return true;
}

/* --- called by native.py ----------------------------------------------------------------------------- */

/* encode             x [n] -> out; false if x is not finite
 * encode_difference  q = Q(x - x_hat) -> out, x_hat += q; false if a difference is not finite; then the groups before
 *                    it are done, and x_hat is unchanged from its group on
 * decode             elements [start, start + n) of a whole buffer of codes -> y
 * add_difference     e += q_j - q_i for the same elements of two buffers
 * largest            check a buffer of n elements: largest magnitude and norm -> bound; false if malformed
 */
#define KERNEL(name) VERSIONS bool name
#define KERNELS(name, codec)                                                                                        \
    KERNEL(deca_##name##_encode)(const float *x, size_t n, uint8_t *out, size_t nbytes) {                           \
        return encode(codec, x, n, out, nbytes);                                                                    \
    }                                                                                                               \
    KERNEL(deca_##name##_encode_difference)                                                                         \
    (const float *x, size_t n, float *x_hat, size_t n_hat, uint8_t *out, size_t nbytes) {                           \
        return encode_difference(codec, x, n, x_hat, n_hat, out, nbytes);                                           \
    }                                                                                                               \
    KERNEL(deca_##name##_decode)(const uint8_t *codes, size_t nbytes, size_t start, float *y, size_t n) {           \
        return decode(codec, codes, nbytes, start, y, n);                                                           \
    }                                                                                                               \
    KERNEL(deca_##name##_add_difference)                                                                            \
    (const uint8_t *theirs, size_t nbytes_j, const uint8_t *ours, size_t nbytes_i, size_t start, float *e, size_t n) { \
        return add_difference(codec, theirs, nbytes_j, ours, nbytes_i, start, e, n);                                \
    }                                                                                                               \
    KERNEL(deca_##name##_largest)(const uint8_t *codes, size_t nbytes, size_t n, float *bound, size_t bounds) {        \
        return largest(codec, codes, nbytes, n, bound, bounds);                                                        \
    }

KERNELS(int8, INT8)
KERNELS(int4, INT4)
KERNELS(topk, TOPK)
