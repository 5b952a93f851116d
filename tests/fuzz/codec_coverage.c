/* What gcc calls at every branch of codec_harness.c, as the table of counters that libFuzzer watches. */

#include <stdint.h>

enum { PLACES = 1 << 13 };

static uint8_t counters[PLACES];

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);

void deca_cov(void) {
    const uintptr_t place = (uintptr_t)__builtin_return_address(0);
    counters[(place ^ place >> 13) % PLACES]++;
}

/* gcc tells of comparisons of floats too; libFuzzer has no use for them. */
void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }

__attribute__((constructor)) static void begin(void) { __sanitizer_cov_8bit_counters_init(counters, counters + PLACES); }
