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

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#ifdef __FAST_MATH__
#error "-ffast-math would change what is computed here"
#endif

_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must not carry extra digits");

/* One version of each kernel per kind of processor, chosen when the library is loaded. That takes glibc. */
#if !defined(VERSIONS) && defined(__x86_64__) && defined(__GLIBC__) && (!defined(__clang__) || __clang_major__ >= 14)
#define VERSIONS __attribute__((target_clones("avx512f", "avx2", "default")))
#elif !defined(VERSIONS)
#define VERSIONS
#endif

#define INLINE static inline __attribute__((always_inline))

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

/* The largest magnitude as its bits. Bits of magnitudes are ordered as the magnitudes are, and a NaN
 * stands above infinity, which no comparison of floats would give. */
INLINE uint32_t largest_bits(const float *x, size_t width) {
    int32_t largest = 0;
    for (size_t i = 0; i < width; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return (uint32_t)largest;
}

INLINE void pack(Codec codec, const float *codes, size_t width, uint8_t *restrict bytes) {
    if (codec.codes_per_byte == 1) {
        for (size_t i = 0; i < width; i++) bytes[i] = (uint8_t)(int32_t)codes[i];
        return;
    }
    const size_t half = (width + 1) / 2;
    for (size_t b = 0; b < half; b++) bytes[b] = (uint8_t)((int32_t)codes[b] + 16 * (int32_t)codes[half + b] + 136);
}

/* Encode x into scale and codes; decoded, if there is one, takes what they stand for. False if x is not finite. */
INLINE bool encode_values(Codec codec, const float *restrict x, size_t width, uint8_t *restrict row,
                          float *restrict decoded) {
    const float scale_max = FLT_MAX / (codec.q + 1.0f);
    const uint32_t bits = largest_bits(x, width);
    if (bits >= INFINITY_BITS) return false;
    float largest, codes[GROUP_MAX + 1];
    memcpy(&largest, &bits, sizeof largest);
    const float wanted = largest / codec.q, at_least = wanted < FLT_MIN ? FLT_MIN : wanted;
    const float scale = at_least > scale_max ? scale_max : at_least, inverse = 1.0f / scale;
    for (size_t i = 0; i < width; i++) codes[i] = (x[i] * inverse + ROUNDER) - ROUNDER;
    if (wanted > scale_max) /* Only then is there anything beyond q. */
        for (size_t i = 0; i < width; i++)
            codes[i] = codes[i] > codec.q ? codec.q : codes[i] < -codec.q ? -codec.q : codes[i];
    codes[width] = 0.0f; /* the high nibble that an odd width lacks */
    memcpy(row, &scale, SCALE_BYTES);
    pack(codec, codes, width, row + SCALE_BYTES);
    for (size_t i = 0; decoded && i < width; i++) decoded[i] = codes[i] * scale;
    return true;
}

/* Decode scale and so many bytes of codes; an odd width of int4 gives one element more. */
INLINE void decode_values(Codec codec, const uint8_t *restrict row, size_t bytes, float *restrict x) {
    float scale;
    memcpy(&scale, row, SCALE_BYTES);
    const uint8_t *codes = row + SCALE_BYTES;
    if (codec.codes_per_byte == 1) {
        for (size_t i = 0; i < bytes; i++) x[i] = (float)(int8_t)codes[i] * scale;
        return;
    }
    for (size_t b = 0; b < bytes; b++) x[b] = (float)((int32_t)(codes[b] & 15) - 8) * scale;
    for (size_t b = 0; b < bytes; b++) x[bytes + b] = (float)((int32_t)(codes[b] >> 4) - 8) * scale;
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
    const uint32_t largest = largest_bits(x, width);
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

INLINE bool encode_sparse(Codec codec, const float *restrict x, size_t width, uint8_t *restrict row,
                          float *restrict decoded) {
    const size_t count = sent(codec, width);
    uint16_t places[GROUP_MAX];
    float kept[GROUP_MAX], values[GROUP_MAX];
    if (!select_largest(x, width, count, places)) return false;
    for (size_t i = 0; i < count; i++) kept[i] = x[places[i]];
    if (!encode_values(codec, kept, count, row, values)) return false;
    pack_places(places, count, row + SCALE_BYTES + count);
    if (!decoded) return true;
    memset(decoded, 0, width * sizeof *decoded);
    for (size_t i = 0; i < count; i++) decoded[places[i]] = values[i];
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

/* Encode x into row; decoded, if there is one, takes what row stands for. False if x is not finite. */
INLINE bool encode_group(Codec codec, const float *restrict x, size_t width, uint8_t *restrict row,
                         float *restrict decoded) {
    if (codec.every > 1) return encode_sparse(codec, x, width, row, decoded);
    return encode_values(codec, x, width, row, decoded);
}

INLINE void decode_row(Codec codec, const uint8_t *restrict row, size_t bytes, float *restrict x) {
    if (codec.every > 1)
        decode_sparse(codec, row, bytes, x);
    else
        decode_values(codec, row, bytes, x);
}

/* Decode group number g of a whole buffer, the last of which may be shorter. */
INLINE void decode_group(Codec codec, const uint8_t *restrict bytes, size_t nbytes, size_t g, float *restrict x) {
    const size_t whole = row_bytes(codec, codec.group), left = nbytes - g * whole;
    if (left >= whole)
        decode_row(codec, bytes + g * whole, whole - SCALE_BYTES, x);
    else
        decode_row(codec, bytes + g * whole, left - SCALE_BYTES, x);
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

enum { CACHE_LINE = 64, NEAR_BYTES = 512, FAR_BYTES = 2048 };

/* Ask for what stands a little behind a group: the loops above go over each group twice, from which the processor
 * by itself does not learn to read ahead. A hint only, so it may lie beyond the end. How far ahead was measured
 * for each kernel: encoding gains half as much again, where 2 KiB ahead takes that away; differences are encoded
 * fastest without. */
INLINE void ask_ahead(const float *x, size_t width, size_t ahead) {
    for (size_t at = 0; at < width * sizeof *x; at += CACHE_LINE)
        __builtin_prefetch((const void *)((uintptr_t)x + ahead + at));
}

#endif
