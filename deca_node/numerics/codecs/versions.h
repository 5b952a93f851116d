#ifndef DECA_VERSIONS_H
#define DECA_VERSIONS_H

/* One version of each kernel per kind of processor. The loader of glibc chooses among them; elsewhere there is one. */
#if !defined(VERSIONS) && defined(__x86_64__) && defined(__GLIBC__) && (!defined(__clang__) || __clang_major__ >= 14)
#define VERSIONS __attribute__((target_clones("avx512f", "avx2", "default")))
#elif !defined(VERSIONS)
#define VERSIONS
#endif

#define INLINE static inline __attribute__((always_inline))

#endif
