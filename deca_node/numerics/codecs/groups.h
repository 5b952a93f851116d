/* One group of the int8, int4 and topk codecs. formats.py describes the wire format and its reasons. codec.c and
 * mixing.c include this file and loop over many groups.
 *
 * Every function here gives the same bits as the torch code. So all arithmetic is float32, in the same order, and no
 * multiplication is fused with an addition (-ffp-contract=off). A group is handled in short loops over arrays that stay
 * in the first cache; the compiler turns each loop into vector instructions.
 *
 * This is plain C11: no Python, no threads, no state, no allocation. Codes may begin at any byte; floats are aligned to
 * four bytes.
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

/* A codec's constants. Every caller passes a literal, so that each loop is compiled for one codec and one width. */
typedef struct {
    size_t group;          /* elements per scale */
    size_t codes_per_byte; /* 1, or 2: the first half of a group in low nibbles, the second in high ones */
    float q;               /* codes are -q..q */
    size_t every;          /* 1, or: of every so many elements the largest is sent, with places after the codes */
} Codec;

#define INT8 ((Codec){256, 1, 127.0f, 1})
#define INT4 ((Codec){64, 2, 7.0f, 1})
#define TOPK ((Codec){1024, 1, 127.0f, 16})

enum { SCALE_BYTES = 4, GROUP_MAX = 1024, HIGHS_PER_BYTE = 4 };

/* Adding and subtracting it rounds magnitudes below 2^22 to the nearest whole number, ties to even. */
static const float ROUNDER = 0x1.8p23f;
static const uint32_t INFINITY_BITS = 0x7f800000;

INLINE size_t ratio_up(size_t n, size_t by) { return (n + by - 1) / by; }

/* The number of a group's elements that are sent. */
INLINE size_t sent(Codec codec, size_t width) { return ratio_up(width, codec.every); }

INLINE size_t places_bytes(Codec codec, size_t count) {
    return codec.every > 1 ? count + ratio_up(count, HIGHS_PER_BYTE) : 0;
}

/* Bytes of a group with width elements. */
INLINE size_t row_bytes(Codec codec, size_t width) {
    const size_t count = sent(codec, width);
    return SCALE_BYTES + ratio_up(count, codec.codes_per_byte) + places_bytes(codec, count);
}

INLINE size_t bytes_of(Codec codec, size_t n) {
    const size_t rest = n % codec.group;
    return n / codec.group * row_bytes(codec, codec.group) + (rest ? row_bytes(codec, rest) : 0);
}

/* Whether a buffer of nbytes holds elements [start, start + n). */
INLINE bool holds(Codec codec, size_t nbytes, size_t start, size_t n) {
    return start + n >= start && bytes_of(codec, start + n) <= nbytes;
}

INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* --- one group ------------------------------------------------------------------------------------- */

/* Loops read from one of the caller's arrays and write straight to another. With a copy on the stack in between, loads
 * wait for stores to addresses that end in the same twelve bits, which can double the time. */

/* Element i of x, or of x - x_hat if there is an x_hat. */
INLINE float element(const float *x, const float *x_hat, size_t i) { return x_hat ? x[i] - x_hat[i] : x[i]; }

/* The bits of the largest magnitude. Bits of magnitudes have the same order as the magnitudes, and a NaN comes after
 * infinity, which a comparison of floats cannot tell. */
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

/* The division of x into codes. Only if clamped is set can a code be beyond q. */
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

/* The bits of a rounded code; the lowest bits are the code itself. */
INLINE uint32_t code_bits(float code) {
    uint32_t bits;
    memcpy(&bits, &code, sizeof bits);
    return bits;
}

/* Write the codes of x; or with x_hat those of x - x_hat, and add what they stand for to x_hat. */
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

/* Encode x, or the difference to x_hat, into scale and codes. False, and nothing is changed, if it is not finite. */
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

/* The number in byte b of a row's codes; of int4 in the low nibble or in the high one. */
INLINE float code_at(Codec codec, const uint8_t *row, size_t b, bool high) {
    const uint8_t code = row[SCALE_BYTES + b];
    if (codec.codes_per_byte == 1) return (float)(int8_t)code;
    return (float)((int32_t)(high ? code >> 4 : code & 15) - 8);
}

/* Decode the scale and so many bytes of codes; for an odd width of int4 this writes one element more. */
INLINE void decode_values(Codec codec, const uint8_t *restrict row, size_t bytes, float *restrict x) {
    const float scale = scale_of(row);
    for (size_t b = 0; b < bytes; b++) x[b] = code_at(codec, row, b, false) * scale;
    if (codec.codes_per_byte == 2)
        for (size_t b = 0; b < bytes; b++) x[bytes + b] = code_at(codec, row, b, true) * scale;
}

/* --- one group of topk ------------------------------------------------------------------------------- */

INLINE size_t count_from(const int32_t *magnitudes, size_t width, int32_t least) {
    int32_t count = 0;
    for (size_t i = 0; i < width; i++) count += magnitudes[i] >= least;
    return (size_t)count;
}

/* A bound that the count largest magnitudes reach, by bisection: one that exactly count magnitudes reach, or else the
 * largest that at least count reach. */
INLINE int32_t least_sent(const int32_t *magnitudes, size_t width, size_t count, int32_t largest) {
    int32_t low = 0, high = largest; /* enough magnitudes reach low; no bound above high has to be tried */
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

/* Rising places of the count largest magnitudes; of equal magnitudes the first. False if x is not finite. */
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

/* Place number i; it is at most 1023, whatever the bytes are. */
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

/* Writes a whole group to x, because the width of a shorter group does not follow from its bytes. */
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

/* Encode x; or the difference to x_hat, and add its decoded form to x_hat. False, and nothing is changed, if it is not
 * finite. */
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

/* Decode group number g of a whole buffer; the last group may be shorter. */
INLINE void decode_group(Codec codec, const uint8_t *restrict bytes, size_t nbytes, size_t g, float *restrict x) {
    const size_t whole = row_bytes(codec, codec.group), left = nbytes - g * whole;
    if (left >= whole)
        decode_row(codec, bytes + g * whole, whole - SCALE_BYTES, x);
    else
        decode_row(codec, bytes + g * whole, left - SCALE_BYTES, x);
}

/* The end of the group of element start, or stop if that is smaller. */
INLINE size_t end_of_group(Codec codec, size_t start, size_t stop) {
    return smaller(stop, (start / codec.group + 1) * codec.group);
}

/* Whether [start, end) is a whole group, and each of its elements has a code. */
INLINE bool whole_and_dense(Codec codec, size_t start, size_t end) {
    return codec.every == 1 && end - start == codec.group;
}

/* e += q_j - q_i for elements [start, end) of one group; e holds these elements only. */
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

/* Whether an encoder can write these codes: it never writes -q - 1, which is -128 or a nibble of 0. */
INLINE bool codes_fit(Codec codec, const uint8_t *codes, size_t bytes) {
    unsigned beyond = 0;
    if (codec.codes_per_byte == 1)
        for (size_t i = 0; i < bytes; i++) beyond |= codes[i] == 0x80;
    else
        for (size_t i = 0; i < bytes; i++) beyond |= (codes[i] & 0x0f) == 0 || (codes[i] & 0xf0) == 0;
    return !beyond;
}

/* The bits of a row's scale; all bits are set if no encoder writes such a row. */
INLINE uint32_t checked_scale(Codec codec, const uint8_t *row, size_t width) {
    const float scale_max = FLT_MAX / (codec.q + 1.0f);
    const size_t count = sent(codec, width);
    uint32_t scale, most;
    memcpy(&scale, row, SCALE_BYTES);
    memcpy(&most, &scale_max, sizeof most);
    if (!codes_fit(codec, row + SCALE_BYTES, ratio_up(count, codec.codes_per_byte))) return UINT32_MAX;
    /* Bits of positive floats have the same order as the floats; negative floats, infinity and NaN come after them. */
    if (scale > most || (codec.every > 1 && !places_rise(row + SCALE_BYTES + count, count, width))) return UINT32_MAX;
    return scale;
}

/* --- prefetching --------------------------------------------------------------------------------------- */

enum { CACHE_LINE = 64, AHEAD_BYTES = 2048 };

/* Prefetch memory a little beyond a group. A loop over several arrays at once needs it, because the processor notices
 * too late by itself that it should read ahead. It is only a hint, so the address may be beyond the end. Measured for
 * each kernel: encoding and decoding are fastest without it. */
INLINE void ask_ahead(const float *x, size_t width) {
    for (size_t at = 0; at < width * sizeof *x; at += CACHE_LINE)
        __builtin_prefetch((const void *)((uintptr_t)x + AHEAD_BYTES + at));
}

#endif
