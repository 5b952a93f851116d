/* The mix in one pass: flows change the differences of their edges, and the parameters.
 *
 *     for every flow, in order     e_ij += q_j - q_i      E += share e_ij
 *                                  x    += E
 *
 * Every array is read and written once. With one pass per flow and operation each array would be fetched from memory
 * several times. The bits are those of the torch code in deca.py and flows.py. Only the sums of squares, which are
 * figures for people, may be rounded differently.
 */

#include "groups.h"

/* The same layout as in native.py. Several flows may belong to one edge; they share its e. */
typedef struct {
    const uint8_t *theirs; /* codes of the whole block */
    size_t theirs_bytes;
    const uint8_t *ours;
    size_t ours_bytes;
    float *e; /* e_ij of the whole block */
    size_t n;
    float share;   /* gamma_c w_ij; with a share of 0 the flow does not change x */
    uint32_t last; /* whether this is the last flow of its edge */
} Flow;

enum { LANES = 16 };

/* A sum of squares in LANES partial sums, so that the compiler can use vectors. */
typedef struct {
    float lanes[LANES];
} Squares;

INLINE void add_squares(Squares *sum, const float *x, size_t width) {
    size_t i = 0;
    for (; i + LANES <= width; i += LANES)
        for (size_t k = 0; k < LANES; k++) sum->lanes[k] += x[i + k] * x[i + k];
    for (size_t k = 0; i + k < width; k++) sum->lanes[k] += x[i + k] * x[i + k];
}

INLINE double total(const Squares *sum) {
    double all = 0.0;
    for (size_t k = 0; k < LANES; k++) all += (double)sum->lanes[k];
    return all;
}

INLINE bool flows_fit(Codec codec, const Flow *flows, size_t count, size_t start, size_t n) {
    bool fit = true;
    for (const Flow *flow = flows; flow < flows + count; flow++) {
        fit = fit && holds(codec, flow->theirs_bytes, start, n) && holds(codec, flow->ours_bytes, start, n);
        fit = fit && start + n <= flow->n;
    }
    return fit;
}

enum { OF_EACH, OF_SUM, OF_FLOW, SUMS };

/* Mix elements [start, start + n) of the block. x holds these elements only, and so does E, if there is one. Added to
 * sums are the squares of every edge's e, of the sum of these, and of E. */
INLINE bool mix(Codec codec, const Flow *flows, size_t count, size_t start, float *restrict x, size_t n,
                float *restrict E, size_t n_E, double *sums, size_t n_sums) {
    if (!flows_fit(codec, flows, count, start, n) || (n_E && n_E != n) || n_sums != SUMS) return false;
    Squares of_each = {{0}}, of_sum = {{0}}, of_flow = {{0}};
    float added[GROUP_MAX], e_sum[GROUP_MAX];
    for (const size_t stop = start + n; start < stop;) {
        const size_t end = end_of_group(codec, start, stop), width = end - start;
        bool any = false;
        ask_ahead(x, codec.group);
        memset(added, 0, width * sizeof *added);
        memset(e_sum, 0, width * sizeof *e_sum);
        for (const Flow *flow = flows; flow < flows + count; flow++) {
            float *restrict e = flow->e + start;
            const float share = flow->share;
            ask_ahead(e, codec.group);
            add_group(codec, flow->theirs, flow->theirs_bytes, flow->ours, flow->ours_bytes, start, end, e);
            if (share != 0.0f && !any) /* not added to zero, which would turn -0.0 into 0.0 */
                for (size_t i = 0; i < width; i++) added[i] = e[i] * share;
            else if (share != 0.0f)
                for (size_t i = 0; i < width; i++) added[i] += e[i] * share;
            any = any || share != 0.0f;
            if (!flow->last) continue;
            add_squares(&of_each, e, width);
            for (size_t i = 0; i < width; i++) e_sum[i] += e[i];
        }
        for (size_t i = 0; i < width; i++) x[i] += added[i];
        add_squares(&of_sum, e_sum, width);
        add_squares(&of_flow, added, width);
        if (n_E) memcpy(E, added, width * sizeof *added), E += width;
        x += width;
        start = end;
    }
    sums[OF_EACH] += total(&of_each);
    sums[OF_SUM] += total(&of_sum);
    sums[OF_FLOW] += total(&of_flow);
    return true;
}

#define MIX(name, codec)                                                                                            \
    VERSIONS bool deca_##name##_mix(const Flow *flows, size_t count, size_t start, float *x, size_t n, float *E,    \
                                    size_t n_E, double *sums, size_t n_sums) {                                      \
        return mix(codec, flows, count, start, x, n, E, n_E, sums, n_sums);                                         \
    }

MIX(int8, INT8)
MIX(int4, INT4)
MIX(topk, TOPK)
