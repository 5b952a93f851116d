/* Copies bytes and computes their XXH3 in one pass, for checked_copy.py.
 *
 * One after the other, checksum and copy would each fetch the chunk from main memory. Here every kilobyte is hashed and
 * copied while it is in the first cache. The checksum is XXH3 with 64 bits and without a seed, in its form for inputs of
 * more than 240 bytes: stripes of 64 bytes go into eight lanes, and sixteen stripes are a block.
 *
 * This is plain C11 with the vector types of GCC and clang: no Python, no threads, no state, no allocation.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../numerics/codecs/versions.h"

#if defined(__GNUC__) && defined(__SIZEOF_INT128__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

#ifdef __clang__
#define SWAP_PAIRS(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6)
#else
#define SWAP_PAIRS(x) __builtin_shuffle(x, (Lanes){1, 0, 3, 2, 5, 4, 7, 6})
#endif

enum { STRIPE = 64, STRIPES = 16, BLOCK = STRIPE * STRIPES, SECRET_STEP = 8, SECRET_BYTES = 192 };
enum { SECRET_OF_LAST_STRIPE = SECRET_BYTES - STRIPE - 7, SECRET_OF_SCRAMBLE = SECRET_BYTES - STRIPE, SECRET_OF_MERGE = 11 };

typedef uint64_t Lanes __attribute__((vector_size(STRIPE)));

/* The format's default secret. */
static const uint8_t SECRET[SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static const uint64_t PRIME32_1 = 0x9E3779B1, PRIME32_2 = 0x85EBCA77, PRIME32_3 = 0xC2B2AE3D;
static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87, PRIME64_2 = 0xC2B2AE3D27D4EB4F, PRIME64_3 = 0x165667B19E3779F9;
static const uint64_t PRIME64_4 = 0x85EBCA77C2B2AE63, PRIME64_5 = 0x27D4EB2F165667C5;

INLINE void accumulate(Lanes *lanes, const uint8_t *stripe, const uint8_t *secret) {
    Lanes data, key;
    memcpy(&data, stripe, STRIPE);
    memcpy(&key, secret, STRIPE);
    key ^= data;
    *lanes += SWAP_PAIRS(data);
    *lanes += (key & 0xffffffff) * (key >> 32);
}

INLINE void scramble(Lanes *lanes) {
    Lanes key;
    memcpy(&key, SECRET + SECRET_OF_SCRAMBLE, STRIPE);
    *lanes = (*lanes ^ *lanes >> 47 ^ key) * PRIME32_1;
}

INLINE uint64_t folded(uint64_t a, uint64_t b) {
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

INLINE uint64_t merged(const Lanes *lanes, size_t nbytes) {
    uint64_t lane[8], key[8], sum = nbytes * PRIME64_1;
    memcpy(lane, lanes, STRIPE);
    memcpy(key, SECRET + SECRET_OF_MERGE, STRIPE);
    for (int i = 0; i < 8; i += 2) sum += folded(lane[i] ^ key[i], lane[i + 1] ^ key[i + 1]);
    sum = (sum ^ sum >> 37) * 0x165667919E3779F9;
    return sum ^ sum >> 32;
}

INLINE uint64_t copy_and_hash(uint8_t *restrict to, const uint8_t *restrict from, size_t nbytes) {
    Lanes lanes = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    const size_t blocks = (nbytes - 1) / BLOCK, rest = nbytes - blocks * BLOCK;
    const uint8_t *last = from + nbytes - STRIPE;
    for (size_t b = 0; b < blocks; b++, from += BLOCK, to += BLOCK) {
        for (size_t i = 0; i < STRIPES; i++) accumulate(&lanes, from + i * STRIPE, SECRET + i * SECRET_STEP);
        scramble(&lanes);
        memcpy(to, from, BLOCK);
    }
    for (size_t i = 0; i < (rest - 1) / STRIPE; i++) accumulate(&lanes, from + i * STRIPE, SECRET + i * SECRET_STEP);
    accumulate(&lanes, last, SECRET + SECRET_OF_LAST_STRIPE);
    memcpy(to, from, rest);
    return merged(&lanes, nbytes);
}

/* Copy more than 240 bytes between arrays that do not overlap; returns their XXH3. */
VERSIONS uint64_t deca_checked_copy(uint8_t *to, const uint8_t *from, size_t nbytes) {
    return copy_and_hash(to, from, nbytes);
}

#else

/* Without this function checked_copy.py does the work in two passes. */
typedef int deca_no_checked_copy;

#endif
