/* One group of the int8, int4 and topk codecs of quantize.py, compiled; that module holds the wire format and the
 * reasons. What walks over many groups includes this: codec.c, and mixing.c.
 *
 * Every function here gives the bits that the torch code gives. So the arithmetic is float32 throughout, in
 * the same order, and no multiplication is fused with an addition (-ffp-contract=off). A group is handled in
 * short loops over arrays that stay in the first cache; the compiler turns each into vector instructions.
 *
 * It is plain C11: no Python, no threads, no state, no allocation. Codes may begin at any byte, floats are aligned
 * to four.
 */

#ifndef DECA_GROUPS_H
#define DECA_GROUPS_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "versions.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#ifdef __FAST_MATH__
#error "-ffast-math would change what is computed here"
#endif

_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must not carry extra digits");

/* Always a constant where it is passed, so that every loop is compiled for one codec and one width. */
typedef struct {
    size_t group;          /* elements per scale */
    size_t codes_per_byte; /* 1, or 2: the first half of a group in low nibbles, the second in high ones */
    float q;               /* codes are -q..q */
    size_t every;          /* 1, or the largest of every so many are sent, with their places after the codes */
} Codec;

#define INT8 ((Codec){256, 1, 127.0f, 1})
#define INT4 ((Codec){64, 2, 7.0f, 1})
#define TOPK ((Codec){1024, 1, 127.0f, 16})

enum { SCALE_BYTES = 4, GROUP_MAX = 1024, HIGHS_PER_BYTE = 4 };

/* Added and subtracted, it rounds magnitudes below 2^22 to the nearest whole number, ties to even. */
static const float ROUNDER = 0x1.8p23f;
static const uint32_t INFINITY_BITS = 0x7f800000;

INLINE size_t ratio_up(size_t n, size_t by) { return (n + by - 1) / by; }

/* How many of a group's elements are sent. */
INLINE size_t sent(Codec codec, size_t width) { return ratio_up(width, codec.every); }

INLINE size_t places_bytes(Codec codec, size_t count) {
    return codec.every > 1 ? count + ratio_up(count, HIGHS_PER_BYTE) : 0;
}

/* Bytes of a group with so many elements. */
INLINE size_t row_bytes(Codec codec, size_t width) {
    const size_t count = sent(codec, width);
    return SCALE_BYTES + ratio_up(count, codec.codes_per_byte) + places_bytes(codec, count);
}

INLINE size_t bytes_of(Codec codec, size_t n) {
    const size_t rest = n % codec.group;
    return n / codec.group * row_bytes(codec, codec.group) + (rest ? row_bytes(codec, rest) : 0);
}

/* Whether a buffer of so many bytes holds elements [start, start + n). */
INLINE bool holds(Codec codec, size_t nbytes, size_t start, size_t n) {
    return start + n >= start && bytes_of(codec, start + n) <= nbytes;
}

INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* --- one group ------------------------------------------------------------------------------------- */

/* Loops go straight from one of the caller's arrays to another. On the stack between them, numbers would at some
 * addresses wait for others whose addresses end in the same twelve bits, for twice the time in all. */

/* Element i of what is encoded: x, or x - x_hat where there is an x_hat. */
INLINE float element(const float *x, const float *x_hat, size_t i) { return x_hat ? x[i] - x_hat[i] : x[i]; }

/* The largest magnitude as its bits. Bits of magnitudes are ordered as the magnitudes are, and a NaN
 * stands above infinity, which no comparison of floats would give. */
INLINE uint32_t largest_bits(const float *x, const float *x_hat, size_t width) {
    int32_t largest = 0;
    for (size_t i = 0; i < width; i++) {
        const float value = element(x, x_hat, i);
        int32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return (uint32_t)largest;
}

/* How x is divided into codes; clamped: only then is there anything beyond q. */
typedef struct {
    float scale, inverse;
    bool clamped;
} Division;

/* A code with ROUNDER added to it. */
INLINE float rounded(Codec codec, Division by, float value) {
    const float code = value * by.inverse + ROUNDER, most = ROUNDER + codec.q, least = ROUNDER - codec.q;
    if (!by.clamped) return code;
    return code > most ? most : code < least ? least : code;
}

/* Bits of which the lowest are the code's own. */
INLINE uint32_t code_bits(float code) {
    uint32_t bits;
    memcpy(&bits, &code, sizeof bits);
    return bits;
}

/* Write the codes of x, or of x - x_hat, which x_hat then takes up. */
INLINE void write_codes(Codec codec, Division by, const float *restrict x, float *restrict x_hat, size_t width,
                        uint8_t *restrict codes) {
    if (codec.codes_per_byte == 1) {
        for (size_t i = 0; i < width; i++) {
            const float code = rounded(codec, by, element(x, x_hat, i));
            codes[i] = (uint8_t)code_bits(code);
            if (x_hat) x_hat[i] += (code - ROUNDER) * by.scale;
        }
        return;
    }
    const size_t half = (width + 1) / 2, pairs = width / 2;
    for (size_t b = 0; b < pairs; b++) {
        const float low = rounded(codec, by, element(x, x_hat, b));
        const float high = rounded(codec, by, element(x, x_hat, half + b));
        codes[b] = (uint8_t)(code_bits(low) + 16u * code_bits(high) + 136u);
        if (x_hat) x_hat[b] += (low - ROUNDER) * by.scale, x_hat[half + b] += (high - ROUNDER) * by.scale;
    }
    if (pairs < half) { /* An odd width lacks one high nibble. */
        const float low = rounded(codec, by, element(x, x_hat, pairs));
        codes[pairs] = (uint8_t)(code_bits(low) + 136u);
        if (x_hat) x_hat[pairs] += (low - ROUNDER) * by.scale;
    }
}

/* Encode x, or the difference to x_hat, into scale and codes. False, and nothing done, if it is not finite. */
INLINE bool encode_values(Codec codec, const float *restrict x, float *restrict x_hat, size_t width,
                          uint8_t *restrict row) {
    const float scale_max = FLT_MAX / (codec.q + 1.0f);
    const uint32_t bits = largest_bits(x, x_hat, width);
    if (bits >= INFINITY_BITS) return false;
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    const float wanted = largest / codec.q, at_least = wanted < FLT_MIN ? FLT_MIN : wanted;
    const float scale = at_least > scale_max ? scale_max : at_least, inverse = 1.0f / scale;
    memcpy(row, &scale, SCALE_BYTES);
    if (wanted > scale_max)
        write_codes(codec, (Division){scale, inverse, true}, x, x_hat, width, row + SCALE_BYTES);
    else
        write_codes(codec, (Division){scale, inverse, false}, x, x_hat, width, row + SCALE_BYTES);
    return true;
}

INLINE float scale_of(const uint8_t *row) {
    float scale;
    memcpy(&scale, row, SCALE_BYTES);
    return scale;
}

/* Code number b of a row, as a number; of int4 from the low nibble or from the high one. */
INLINE float code_at(Codec codec, const uint8_t *row, size_t b, bool high) {
    const uint8_t code = row[SCALE_BYTES + b];
    if (codec.codes_per_byte == 1) return (float)(int8_t)code;
    return (float)((int32_t)(high ? code >> 4 : code & 15) - 8);
}

/* Decode scale and so many bytes of codes; an odd width of int4 gives one element more. */
INLINE void decode_values(Codec codec, const uint8_t *restrict row, size_t bytes, float *restrict x) {
    const float scale = scale_of(row);
    for (size_t b = 0; b < bytes; b++) x[b] = code_at(codec, row, b, false) * scale;
    if (codec.codes_per_byte == 2)
        for (size_t b = 0; b < bytes; b++) x[bytes + b] = code_at(codec, row, b, true) * scale;
}

/* --- one group of which little is sent --------------------------------------------------------------- */

INLINE size_t count_from(const int32_t *magnitudes, size_t width, int32_t least) {
    int32_t count = 0;
    for (size_t i = 0; i < width; i++) count += magnitudes[i] >= least;
    return (size_t)count;
}

/* The largest bound that at least count magnitudes reach, by halving; or any that exactly count reach. */
INLINE int32_t least_sent(const int32_t *magnitudes, size_t width, size_t count, int32_t largest) {
    int32_t low = 0, high = largest; /* low is reached by enough; no more than high has to be tried */
    while (low < high) {
        const int32_t middle = low + (high - low) / 2 + 1;
        const size_t found = count_from(magnitudes, width, middle);
        if (found == count) return middle;
        if (found > count)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Places of the count largest magnitudes, rising; of equal ones the first. False if x is not finite. */
INLINE bool select_largest(const float *restrict x, size_t width, size_t count, uint16_t *restrict places) {
    int32_t magnitudes[GROUP_MAX];
    memcpy(magnitudes, x, width * sizeof *x);
    for (size_t i = 0; i < width; i++) magnitudes[i] &= 0x7fffffff;
    const uint32_t largest = largest_bits(x, NULL, width);
    if (largest >= INFINITY_BITS) return false;
    const int32_t least = least_sent(magnitudes, width, count, (int32_t)largest);
    size_t equal = count - count_from(magnitudes, width, least + 1), n = 0;
    for (size_t i = 0; i < width && n < count; i++) {
        const bool tied = magnitudes[i] == least && equal > 0;
        equal -= tied;
        places[n] = (uint16_t)i;
        n += tied || magnitudes[i] > least;
    }
    return true;
}

INLINE void pack_places(const uint16_t *places, size_t count, uint8_t *restrict bytes) {
    memset(bytes + count, 0, ratio_up(count, HIGHS_PER_BYTE));
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)places[i];
        bytes[count + i / HIGHS_PER_BYTE] |= (uint8_t)(places[i] >> 8 << 2 * (i % HIGHS_PER_BYTE));
    }
}

/* Place number i, never above 1023, whatever the bytes are. */
INLINE size_t place(const uint8_t *bytes, size_t count, size_t i) {
    const unsigned high = bytes[count + i / HIGHS_PER_BYTE] >> 2 * (i % HIGHS_PER_BYTE) & 3;
    return bytes[i] | (size_t)high << 8;
}

INLINE bool places_rise(const uint8_t *bytes, size_t count, size_t width) {
    size_t next = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t at = place(bytes, count, i);
        if (at < next || at >= width) return false;
        next = at + 1;
    }
    return true;
}

INLINE bool encode_sparse(Codec codec, const float *restrict x, size_t width, uint8_t *restrict row) {
    const size_t count = sent(codec, width);
    uint16_t places[GROUP_MAX];
    float kept[GROUP_MAX];
    if (!select_largest(x, width, count, places)) return false;
    for (size_t i = 0; i < count; i++) kept[i] = x[places[i]];
    if (!encode_values(codec, kept, NULL, count, row)) return false;
    pack_places(places, count, row + SCALE_BYTES + count);
    return true;
}

/* x takes a whole group, since the width of a shorter one does not follow from its bytes. */
INLINE void decode_sparse(Codec codec, const uint8_t *restrict row, size_t bytes, float *restrict x) {
    const size_t count = bytes * 4 / 9; /* a byte of code, a byte and a quarter of place, rounded up */
    const uint8_t *places = row + SCALE_BYTES + count;
    float values[GROUP_MAX];
    decode_values(codec, row, count, values);
    memset(x, 0, codec.group * sizeof *x);
    for (size_t i = 0; i < count; i++) x[place(places, count, i)] = values[i];
}

/* --- any group --------------------------------------------------------------------------------------- */

INLINE void decode_row(Codec codec, const uint8_t *restrict row, size_t bytes, float *restrict x) {
    if (codec.every > 1)
        decode_sparse(codec, row, bytes, x);
    else
        decode_values(codec, row, bytes, x);
}

/* Encode x, or the difference to x_hat, which x_hat then takes up. False, and nothing done, if it is not finite. */
INLINE bool encode_group(Codec codec, const float *restrict x, float *restrict x_hat, size_t width,
                         uint8_t *restrict row) {
    if (codec.every == 1) return encode_values(codec, x, x_hat, width, row);
    if (!x_hat) return encode_sparse(codec, x, width, row);
    float difference[GROUP_MAX], q[GROUP_MAX];
    for (size_t i = 0; i < width; i++) difference[i] = x[i] - x_hat[i];
    if (!encode_sparse(codec, difference, width, row)) return false;
    decode_sparse(codec, row, row_bytes(codec, width) - SCALE_BYTES, q);
    for (size_t i = 0; i < width; i++) x_hat[i] += q[i];
    return true;
}

/* Decode group number g of a whole buffer, the last of which may be shorter. */
INLINE void decode_group(Codec codec, const uint8_t *restrict bytes, size_t nbytes, size_t g, float *restrict x) {
    const size_t whole = row_bytes(codec, codec.group), left = nbytes - g * whole;
    if (left >= whole)
        decode_row(codec, bytes + g * whole, whole - SCALE_BYTES, x);
    else
        decode_row(codec, bytes + g * whole, left - SCALE_BYTES, x);
}

/* Where the group of element start ends, or stop. */
INLINE size_t end_of_group(Codec codec, size_t start, size_t stop) {
    return smaller(stop, (start / codec.group + 1) * codec.group);
}

/* Whether [start, end) is a whole group, every element of which has a code. */
INLINE bool whole_and_dense(Codec codec, size_t start, size_t end) {
    return codec.every == 1 && end - start == codec.group;
}

/* e += q_j - q_i for elements [start, end) of one group; e are those alone. */
INLINE void add_group(Codec codec, const uint8_t *theirs, size_t theirs_bytes, const uint8_t *ours, size_t ours_bytes,
                      size_t start, size_t end, float *restrict e) {
    const size_t g = start / codec.group, lead = start % codec.group;
    if (whole_and_dense(codec, start, end)) {
        const size_t codes = codec.group / codec.codes_per_byte, first = g * row_bytes(codec, codec.group);
        const uint8_t *row_j = theirs + first, *row_i = ours + first;
        const float scale_j = scale_of(row_j), scale_i = scale_of(row_i);
        for (size_t b = 0; b < codes; b++)
            e[b] += code_at(codec, row_j, b, false) * scale_j - code_at(codec, row_i, b, false) * scale_i;
        for (size_t b = 0; codec.codes_per_byte == 2 && b < codes; b++)
            e[codes + b] += code_at(codec, row_j, b, true) * scale_j - code_at(codec, row_i, b, true) * scale_i;
        return;
    }
    float q_j[GROUP_MAX], q_i[GROUP_MAX];
    decode_group(codec, theirs, theirs_bytes, g, q_j);
    decode_group(codec, ours, ours_bytes, g, q_i);
    for (size_t i = 0; i < end - start; i++) e[i] += q_j[lead + i] - q_i[lead + i];
}

/* Whether an encoder writes such codes: never -q - 1, which is -128 or a nibble of 0. */
INLINE bool codes_fit(Codec codec, const uint8_t *codes, size_t bytes) {
    unsigned beyond = 0;
    if (codec.codes_per_byte == 1)
        for (size_t i = 0; i < bytes; i++) beyond |= codes[i] == 0x80;
    else
        for (size_t i = 0; i < bytes; i++) beyond |= (codes[i] & 0x0f) == 0 || (codes[i] & 0xf0) == 0;
    return !beyond;
}

/* The scale of a row as its bits; all bits set where no encoder writes such a row. */
INLINE uint32_t checked_scale(Codec codec, const uint8_t *row, size_t width) {
    const float scale_max = FLT_MAX / (codec.q + 1.0f);
    const size_t count = sent(codec, width);
    uint32_t scale, most;
    memcpy(&scale, row, SCALE_BYTES);
    memcpy(&most, &scale_max, sizeof most);
    if (!codes_fit(codec, row + SCALE_BYTES, ratio_up(count, codec.codes_per_byte))) return UINT32_MAX;
    /* Bits of positive floats are ordered as the floats are; a sign, infinity and NaN stand above them. */
    if (scale > most || (codec.every > 1 && !places_rise(row + SCALE_BYTES + count, count, width))) return UINT32_MAX;
    return scale;
}

/* --- memory ahead -------------------------------------------------------------------------------------- */

enum { CACHE_LINE = 64, AHEAD_BYTES = 2048 };

/* Ask for what stands a little behind a group, where several arrays are gone through at once, from which the processor
 * by itself learns too late to read ahead. A hint only, so it may lie beyond the end. It was measured for each kernel:
 * encoding and decoding are fastest without. */
INLINE void ask_ahead(const float *x, size_t width) {
    for (size_t at = 0; at < width * sizeof *x; at += CACHE_LINE)
        __builtin_prefetch((const void *)((uintptr_t)x + AHEAD_BYTES + at));
}

#endif
