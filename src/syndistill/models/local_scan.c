/* The rounds of a local GRU (models/local_gru.py) and their gradients, in blocks of LANES shots.

   Of the matrix that PyTorch multiplies three quarters are zeros; here only neighbours are multiplied, and gates never
   leave the cache.  A vector holds one number of LANES shots.

   Given at compile time: S stabilisers, D width of a state, C channels at once (divides D), K kinds of targets.
   Arrays of the caller are float32, C order:
     bits   (B, R, 2, S)   uint8, events and parities
     start  (B, S, D)      states before the first round
     states (B, R, S, D)
     wide   (K, 9, D/C, D, 3, C)  recurrent weights: kind of the target, place, chunk, source channel, gate, channel
     tall   (K, 9, 3 D, D)        the same: kind, place, gate and channel, source channel
     inputs (K, 9, D/C, 2, 3, C)  weights of the bits
     bias   (3, S, D), hidden_bias (S, D)
   Gates: reset r, update z, candidate n; q = hidden part of n before it is reset (PyTorch's nn.GRU).
   pairs: targets in order, with the sources that they hear, each at its place. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define PLACES 9
#define GROUP 8 /* rounds whose gradients wait for the sum over shots */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float row __attribute__((vector_size(4 * D), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef vec states_t[S][D];
typedef vec bits_t[S][2];
typedef struct { states_t r, z, n, q; } gates_t;

typedef struct {
    const int64_t *start_S, *source_P, *place_P, *kind_S;
    const float *wide, *tall, *inputs, *bias, *hidden_bias;
} cell_t;

typedef struct {
    float *tall, *inputs, *bias, *hidden_bias;
} gradients_t;

static inline vec either(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

static inline vec exponential(vec x) {
    const vec low = (vec){} - 80.0f, high = (vec){} + 80.0f;
    x = either(x < low, low, either(x > high, high, x));
    const vec t = x * 1.44269504f, shifted = t + 12582912.0f; /* 1.5 * 2^23: the nearest integer in the last bits */
    const vec f = (t - (shifted - 12582912.0f)) * 0.69314718f;
    vec p = f * (1.0f / 720) + 1.0f / 120;
    p = p * f + 1.0f / 24, p = p * f + 1.0f / 6, p = p * f + 0.5f, p = p * f + 1.0f, p = p * f + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

static inline vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* states (n shots, stride apart, S D numbers each) to and from lanes */
static void to_lanes(states_t to, const float *from, int n, int64_t stride) {
    float *x = (float *)to;
    if (n < LANES) memset(to, 0, sizeof(states_t));
    for (int l = 0; l < n; l++)
        for (int i = 0; i < S * D; i++) x[i * LANES + l] = from[l * stride + i];
}

static void from_lanes(float *to, states_t from, int n, int64_t stride) {
    const float *x = (const float *)from;
    for (int l = 0; l < n; l++)
        for (int i = 0; i < S * D; i++) to[l * stride + i] = x[i * LANES + l];
}

static void bits_to_lanes(bits_t to, const uint8_t *from, int n, int64_t stride) {
    float *x = (float *)to;
    if (n < LANES) memset(to, 0, sizeof(bits_t));
    for (int l = 0; l < n; l++)
        for (int b = 0; b < 2; b++)
            for (int s = 0; s < S; s++) x[(s * 2 + b) * LANES + l] = from[l * stride + b * S + s];
}

/* One round of the block: gates, and the states after it. */
static void one_round(const cell_t *cell, states_t h, bits_t bits, gates_t *gates, states_t after) {
    for (int s = 0; s < S; s++)
        for (int chunk = 0; chunk < D / C; chunk++) {
            const int64_t x = cell->kind_S[s], first = cell->start_S[s], last = cell->start_S[s + 1];
            const int d0 = chunk * C;
            vec acc[3][C], n[C];
            for (int c = 0; c < C; c++) {
                for (int g = 0; g < 2; g++) acc[g][c] = (vec){} + cell->bias[(g * S + s) * D + d0 + c];
                n[c] = (vec){} + cell->bias[(2 * S + s) * D + d0 + c];
            }
            for (int64_t p = first; p < last; p++) {
                const float *w = cell->inputs + ((x * PLACES + cell->place_P[p]) * (D / C) + chunk) * 2 * 3 * C;
                for (int b = 0; b < 2; b++, w += 3 * C) {
                    const vec bit = bits[cell->source_P[p]][b];
                    for (int c = 0; c < C; c++)
                        acc[0][c] += bit * w[c], acc[1][c] += bit * w[C + c], n[c] += bit * w[2 * C + c];
                }
            }
            for (int c = 0; c < C; c++) {
                gates->n[s][d0 + c] = n[c];
                acc[2][c] = (vec){} + cell->hidden_bias[s * D + d0 + c];
            }
            for (int64_t p = first; p < last; p++) {
                const float *w = cell->wide + ((x * PLACES + cell->place_P[p]) * (D / C) + chunk) * D * 3 * C;
                const vec *from = h[cell->source_P[p]];
                for (int j = 0; j < D; j++, w += 3 * C) {
                    const vec state = from[j];
                    for (int g = 0; g < 3; g++)
                        for (int c = 0; c < C; c++) acc[g][c] += state * w[g * C + c];
                }
            }
            for (int c = 0; c < C; c++) {
                const vec r = sigmoid(acc[0][c]), z = sigmoid(acc[1][c]), q = acc[2][c];
                const vec candidate = 2.0f * sigmoid(2.0f * (gates->n[s][d0 + c] + r * q)) - 1.0f;
                gates->r[s][d0 + c] = r, gates->z[s][d0 + c] = z, gates->q[s][d0 + c] = q;
                gates->n[s][d0 + c] = candidate;
                after[s][d0 + c] = candidate + z * (h[s][d0 + c] - candidate);
            }
        }
}

/* The gradients of a round before its gates, in place of the gates, and of the states before it. */
static void one_round_back(const cell_t *cell, states_t h, gates_t *gates, states_t d_after) {
    static _Thread_local states_t carried;
    for (int s = 0; s < S; s++)
        for (int d = 0; d < D; d++) {
            const vec r = gates->r[s][d], z = gates->z[s][d], n = gates->n[s][d], q = gates->q[s][d];
            const vec dh = d_after[s][d], dn = dh * (1.0f - z) * (1.0f - n * n);
            carried[s][d] = dh * z;
            gates->z[s][d] = dh * (h[s][d] - n) * z * (1.0f - z);
            gates->n[s][d] = dn;
            gates->r[s][d] = dn * q * r * (1.0f - r);
            gates->q[s][d] = dn * r;
        }
    for (int t = 0; t < S; t++)
        for (int64_t p = cell->start_S[t]; p < cell->start_S[t + 1]; p++) {
            const float *w = cell->tall + (cell->kind_S[t] * PLACES + cell->place_P[p]) * 3 * D * D;
            vec *to = carried[cell->source_P[p]], acc[D];
            for (int j = 0; j < D; j++) acc[j] = to[j];
            const vec *of_gate[3] = {gates->r[t], gates->z[t], gates->q[t]};
            for (int g = 0; g < 3; g++)
                for (int d = 0; d < D; d++, w += D) {
                    const vec x = of_gate[g][d];
                    for (int j = 0; j < D; j++) acc[j] += x * w[j];
                }
            for (int j = 0; j < D; j++) to[j] = acc[j];
        }
    memcpy(d_after, carried, sizeof(states_t));
}

/* Lane i of the result is the sum over the lanes of v[i]. */
static inline vec sums(vec v[LANES]) {
#define FOLD(HALF, ...)                                                                         \
    for (int i = 0; i < HALF; i++) {                                                            \
        const ivec low = {__VA_ARGS__}, high = low + HALF;                                      \
        v[i] = __builtin_shuffle(v[i], v[i + HALF], low) + __builtin_shuffle(v[i], v[i + HALF], high); \
    }
    FOLD(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
    FOLD(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    FOLD(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    FOLD(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#undef FOLD
    return v[0];
}

static inline float sum(vec v) {
    float total = 0;
    for (int l = 0; l < LANES; l++) total += v[l];
    return total;
}

/* Adds the weights' gradients of `n` rounds of a block.

   from[k] + l * stride is the state of all stabilisers before round k in shot l: with its D channels as the vector the
   sum over shots needs no sum over lanes. */
static void add_gradients(const cell_t *cell, int shots, int n, const float **from, const int64_t *stride, bits_t *bits,
                          gates_t *gates, const gradients_t *to) {
    for (int t = 0; t < S; t++)
        for (int64_t p = cell->start_S[t]; p < cell->start_S[t + 1]; p++) {
            const int64_t u = cell->source_P[p], block = cell->kind_S[t] * PLACES + cell->place_P[p];
            for (int g = 0; g < 3; g++) {
                row *out = (row *)(to->tall + (block * 3 + g) * D * D), acc[D];
                for (int d = 0; d < D; d++) acc[d] = out[d];
                for (int k = 0; k < n; k++) {
                    const float *a = (const float *)(g == 0 ? gates[k].r : g == 1 ? gates[k].z : gates[k].q)[t];
                    for (int l = 0; l < shots; l++) {
                        const row b = *(const row *)(from[k] + l * stride[k] + u * D);
                        for (int d = 0; d < D; d++) acc[d] += a[d * LANES + l] * b;
                    }
                }
                for (int d = 0; d < D; d++) out[d] = acc[d];
                for (int d0 = 0; d0 < D; d0 += LANES / 2) {
                    vec of_bits[LANES] = {};
                    for (int k = 0; k < n; k++) {
                        const vec *a = (g == 0 ? gates[k].r : g == 1 ? gates[k].z : gates[k].n)[t] + d0;
                        for (int d = 0; d < LANES / 2; d++)
                            for (int b = 0; b < 2; b++) of_bits[2 * d + b] += a[d] * bits[k][u][b];
                    }
                    float *inputs = to->inputs + ((block * 3 + g) * D + d0) * 2;
                    const vec total = sums(of_bits);
                    for (int i = 0; i < LANES; i++) inputs[i] += total[i];
                }
            }
        }
    for (int s = 0; s < S; s++)
        for (int d = 0; d < D; d++) {
            vec acc[4] = {};
            for (int k = 0; k < n; k++) {
                acc[0] += gates[k].r[s][d], acc[1] += gates[k].z[s][d];
                acc[2] += gates[k].n[s][d], acc[3] += gates[k].q[s][d];
            }
            for (int g = 0; g < 3; g++) to->bias[(g * S + s) * D + d] += sum(acc[g]);
            to->hidden_bias[s * D + d] += sum(acc[3]);
        }
}

typedef struct { states_t *h; bits_t *bits; gates_t *gates; } space_t;

static int reserve(space_t *space, int64_t rounds, int64_t kept) {
    space->h = aligned_alloc(64, (rounds + 1) * sizeof(states_t));
    space->bits = aligned_alloc(64, rounds * sizeof(bits_t));
    space->gates = aligned_alloc(64, kept * sizeof(gates_t));
    return space->h && space->bits && space->gates;
}

static void release(space_t *space) { free(space->h), free(space->bits), free(space->gates); }

/* Returns 0, or 1 where there is no memory. */
int scan(int64_t shots, int64_t rounds, const cell_t *cell, const uint8_t *bits, const float *start, float *states) {
    space_t space;
    int failed = !reserve(&space, rounds, 1);
    for (int64_t b = 0; b < shots && !failed; b += LANES) {
        const int n = shots - b < LANES ? shots - b : LANES;
        to_lanes(space.h[0], start + b * S * D, n, S * D);
        for (int64_t k = 0; k < rounds; k++) {
            bits_to_lanes(space.bits[k], bits + (b * rounds + k) * 2 * S, n, rounds * 2 * S);
            one_round(cell, space.h[k], space.bits[k], space.gates, space.h[k + 1]);
            from_lanes(states + (b * rounds + k) * S * D, space.h[k + 1], n, rounds * S * D);
        }
    }
    release(&space);
    return failed;
}

/* Adds to the weights' gradients and writes d_start; goes through the rounds forward once more, which is cheaper than
   to keep and fetch their gates.  Lanes without a shot have gradients of 0. */
int scan_back(int64_t shots, int64_t rounds, const cell_t *cell, const uint8_t *bits, const float *start,
              const float *states, const float *d_states, float *d_start, const gradients_t *to) {
    space_t space;
    static _Thread_local states_t d_after, d_here;
    int failed = !reserve(&space, rounds, rounds);
    for (int64_t b = 0; b < shots && !failed; b += LANES) {
        const int n = shots - b < LANES ? shots - b : LANES;
        to_lanes(space.h[0], start + b * S * D, n, S * D);
        for (int64_t k = 0; k < rounds; k++) {
            bits_to_lanes(space.bits[k], bits + (b * rounds + k) * 2 * S, n, rounds * 2 * S);
            one_round(cell, space.h[k], space.bits[k], space.gates + k, space.h[k + 1]);
        }
        memset(d_after, 0, sizeof d_after);
        for (int64_t k = rounds - 1; k >= 0; k--) {
            to_lanes(d_here, d_states + (b * rounds + k) * S * D, n, rounds * S * D);
            for (int i = 0; i < S * D; i++) ((vec *)d_after)[i] += ((vec *)d_here)[i];
            one_round_back(cell, space.h[k], space.gates + k, d_after);
            if (k % GROUP == 0) {
                const int m = rounds - k < GROUP ? rounds - k : GROUP;
                const float *from[GROUP];
                int64_t stride[GROUP];
                for (int i = 0; i < m; i++) {
                    from[i] = k + i ? states + (b * rounds + k + i - 1) * S * D : start + b * S * D;
                    stride[i] = k + i ? rounds * S * D : S * D;
                }
                add_gradients(cell, n, m, from, stride, space.bits + k, space.gates + k, to);
            }
        }
        from_lanes(d_start + b * S * D, d_after, n, S * D);
    }
    release(&space);
    return failed;
}
