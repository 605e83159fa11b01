// One model on a tile of windows: forwards, the loss, and backwards.
//
// A vec holds one number of sixteen windows, and a tile GROUP such vecs at each position. Every
// operation is then plain arithmetic between vecs, however narrow the model, and a tile stays in
// the core's own cache with all its activations. LayerNorm's scales and attention's are folded into
// the matrices before (kernel.cpp), so only its centring is left here.
//
// Windows that begin alike share their first CUT positions: those are computed once, in a tile of
// beginnings, and attention reads their keys and values from there.

#include <algorithm>

#include "lanes.h"

constexpr int D_HEAD = D_MODEL / HEADS;
constexpr int CUT = POS >= 6 ? 3 : 0;
constexpr int GROUP = POS <= 12 ? 2 : 1;
constexpr int WINDOWS = GROUP * LANES;  // of a tile

// ---- the folded parameters, flat

constexpr int EMBED = 0;
constexpr int POS_EMBED = EMBED + VOCAB * D_MODEL;
constexpr int BLOCKS = POS_EMBED + POS * D_MODEL;
constexpr int QKV = 0;
constexpr int QKV_BIAS = QKV + D_MODEL * 3 * D_MODEL;
constexpr int OUT = QKV_BIAS + BIAS * 3 * D_MODEL;
constexpr int OUT_BIAS = OUT + D_MODEL * D_MODEL;
constexpr int MLP_IN = OUT_BIAS + BIAS * D_MODEL;
constexpr int MLP_IN_BIAS = MLP_IN + D_MODEL * D_MLP;
constexpr int MLP_OUT = MLP_IN_BIAS + BIAS * D_MLP;
constexpr int MLP_OUT_BIAS = MLP_OUT + D_MLP * D_MODEL;
constexpr int BLOCK = MLP_OUT_BIAS + BIAS * D_MODEL;
constexpr int UNEMBED = BLOCKS + LAYERS * BLOCK;
constexpr int UNEMBED_BIAS = UNEMBED + D_MODEL * VOCAB;
constexpr int SIZE = UNEMBED_BIAS + BIAS * VOCAB;

// ---- LayerNorm

template <int N>
inline void normalise(const vec* x, vec* hat, vec* inverse) {
    for (int n = 0; n < N; n++, x += D_MODEL, hat += D_MODEL) {
        vec mean = all(0), variance = all(0);
        for (int d = 0; d < D_MODEL; d++) mean += x[d];
        mean = mean * real(1.0 / D_MODEL);
        for (int d = 0; d < D_MODEL; d++) {
            hat[d] = x[d] - mean;
            variance = fused(hat[d], hat[d], variance);
        }
        inverse[n] = all(1) / root(fused(variance, real(1.0 / D_MODEL), real(EPSILON)));
        for (int d = 0; d < D_MODEL; d++) hat[d] *= inverse[n];
    }
}

// Adds to dx the gradient that dhat is of a normalised vector.
template <int N>
inline void normalise_backward(const vec* hat, const vec* inverse, const vec* dhat, vec* dx) {
    for (int n = 0; n < N; n++, hat += D_MODEL, dhat += D_MODEL, dx += D_MODEL) {
        vec mean = all(0), along = all(0);
        for (int d = 0; d < D_MODEL; d++) {
            mean += dhat[d];
            along = fused(dhat[d], hat[d], along);
        }
        mean = mean * real(1.0 / D_MODEL), along = along * real(-1.0 / D_MODEL);
        for (int d = 0; d < D_MODEL; d++) {
            dx[d] = fused(inverse[n], fused(hat[d], along, dhat[d] - mean), dx[d]);
        }
    }
}

// ---- the tile

template <int FIRST, int LAST>
struct Tile;
using Beginnings = Tile<0, CUT ? CUT : 1>;

// Positions FIRST to LAST. Rows of arrays are positions, and in each the GROUP vecs.
template <int FIRST, int LAST>
struct Tile {
    static constexpr int N = GROUP * (LAST - FIRST), KEYS = GROUP * LAST, W = 3 * D_MODEL;
    static constexpr int OWN = GROUP * FIRST;  // rows of queries, keys and values before the own
    using Pattern = vec[LAST][LAST];           // [query][key], of one head in one vec of windows

    struct Layer {
        vec normal1[N * D_MODEL], inverse1[N], qkv[KEYS * W], dqkv[KEYS * W];
        Pattern pattern[GROUP][HEADS];
        vec z[N * D_MODEL], normal2[N * D_MODEL], inverse2[N], post[N * D_MLP], slope[N * D_MLP];
    };

    // One-hot inputs; weighted one-hot targets, and their summed weight.
    vec read[N * VOCAB], aims[N * VOCAB], counted[N];
    Layer layers[LAYERS];
    vec residual[N * D_MODEL], normal[N * D_MODEL], inverse[N], logits[N * VOCAB];
    vec dnormal[N * D_MODEL], dz[N * D_MODEL], dpost[N * D_MLP];
    Pattern dpattern;
    Beginnings* beginnings;  // of all windows, and each window's place among them
    int origin[WINDOWS], there;

    void clear() {
        std::memset(read, 0, sizeof read);
        std::memset(aims, 0, sizeof aims);
        std::memset(counted, 0, sizeof counted);
        for (Layer& layer : layers) {
            std::memset(layer.qkv, 0, OWN * W * sizeof(vec));  // of places that stay empty
            std::memset(layer.dqkv, 0, sizeof layer.dqkv);
        }
        there = 0;
    }

    static real& number(vec* x, int row, int width, int column, int place) {
        return ((real*)x)[((row + place / LANES) * width + column) * LANES + place % LANES];
    }

    // Puts a window of POS + 1 characters in a place; in a tile of beginnings, each further window
    // of a beginning adds its targets.
    void put(const std::int32_t* window, int place, real weight) {
        there = std::max(there, place + 1);
        for (int pos = FIRST; pos < LAST; pos++) {
            const int row = (pos - FIRST) * GROUP, now = window[pos], next = window[pos + 1];
            if (now >= 0) number(read, row, VOCAB, now, place) = 1;
            if (next >= 0) {
                number(aims, row, VOCAB, next, place) += weight;
                number(counted, row, 1, 0, place) += weight;
            }
        }
    }

    // Copies a window's logits into [POS][VOCAB].
    void keep(int place, real* into) {
        for (int pos = FIRST; pos < LAST; pos++) {
            for (int v = 0; v < VOCAB; v++) {
                into[pos * VOCAB + v] = number(logits, (pos - FIRST) * GROUP, VOCAB, v, place);
            }
        }
    }

    // ---- forwards

    void forward(const real* w) {
        product<N, VOCAB, D_MODEL>(read, w + EMBED, residual);
        for (int n = 0; n < N; n++) {
            const real* position = w + POS_EMBED + (FIRST + n / GROUP) * D_MODEL;
            for (int d = 0; d < D_MODEL; d++) residual[n * D_MODEL + d] += all(position[d]);
        }
        for (int layer = 0; layer < LAYERS; layer++) {
            block_forward(layer, w + BLOCKS + layer * BLOCK);
        }
        normalise<N>(residual, normal, inverse);
        product<N, D_MODEL, VOCAB>(normal, w + UNEMBED, logits, w + UNEMBED_BIAS);
    }

    void block_forward(int layer, const real* w) {
        Layer& a = layers[layer];
        normalise<N>(residual, a.normal1, a.inverse1);
        product<N, D_MODEL, W>(a.normal1, w + QKV, a.qkv + OWN * W, w + QKV_BIAS);
        each_past(layer, [&](int i, real* own, Beginnings& from, int j) {
            own[i] = ((real*)from.layers[layer].qkv)[j];
        });
        for (int group = 0; group < GROUP; group++) {
            for (int head = 0; head < HEADS; head++) {
                const vec* q = a.qkv + group * W + head * D_HEAD;
                Pattern& pattern = a.pattern[group][head];
                overlap<W>(q, q + D_MODEL, pattern);
                for (int query = FIRST; query < LAST; query++) softmax(pattern[query], query + 1);
                mix(pattern, q + 2 * D_MODEL, a.z + group * D_MODEL + head * D_HEAD);
            }
        }
        product<N, D_MODEL, D_MODEL, ADD>(a.z, w + OUT, residual, w + OUT_BIAS);
        normalise<N>(residual, a.normal2, a.inverse2);
        product<N, D_MODEL, D_MLP>(a.normal2, w + MLP_IN, a.post, w + MLP_IN_BIAS);
        for (int i = 0; i < N * D_MLP; i++) gelu(a.post[i], a.post[i], a.slope[i]);
        product<N, D_MLP, D_MODEL, ADD>(a.post, w + MLP_OUT, residual, w + MLP_OUT_BIAS);
    }

    // Calls body for each key and value that windows have from their beginnings: its index here,
    // and there.
    template <class Body>
    void each_past(int layer, Body body) {
        for (int place = 0; place < (FIRST ? there : 0); place++) {
            Beginnings& from = beginnings[origin[place] / WINDOWS];
            const int other = origin[place] % WINDOWS;
            for (int pos = 0; pos < FIRST; pos++) {
                const int i = (pos * GROUP + place / LANES) * W * LANES + place % LANES;
                const int j = (pos * GROUP + other / LANES) * W * LANES + other % LANES;
                for (int c = D_MODEL; c < W; c++) {
                    body(i + c * LANES, (real*)layers[layer].qkv, from, j + c * LANES);
                }
            }
        }
    }

    static void softmax(vec* x, int size) {
        vec most = x[0], sum = all(0);
        for (int i = 1; i < size; i++) most = larger(most, x[i]);
        for (int i = 0; i < size; i++) sum += x[i] = exponential(x[i] - most);
        sum = all(1) / sum;
        for (int i = 0; i < size; i++) x[i] *= sum;
    }

    // y[query][key] = a[query] . b[key], for keys at most the query; a has A channels a row.
    template <int A>
    static void overlap(const vec* a, const vec* b, Pattern& y) {
        for (int query = FIRST; query < LAST; query++) {
            const vec* left = a + (A == W ? query : query - FIRST) * GROUP * A;
            blocks<LAST, SUMS == 32 ? 5 : 3>([&](int key, auto keys) {
                if (key > query) return;
                constexpr int K = decltype(keys)::value;
                vec sum[K] = {};
                for (int e = 0; e < D_HEAD; e++) {
                    UNROLLED for (int k = 0; k < K; k++) {
                        sum[k] = fused(left[e], b[(key + k) * GROUP * W + e], sum[k]);
                    }
                }
                UNROLLED for (int k = 0; k < K; k++) y[query][key + k] = sum[k];
            });
        }
    }

    // y[query] = the sum over pattern[query][key] x[key]
    template <int Y = D_MODEL>
    static void mix(const Pattern& pattern, const vec* x, vec* y) {
        for (int query = FIRST; query < LAST; query++) {
            blocks<D_HEAD, SUMS / 2>([&](int e, auto width) {
                constexpr int E = decltype(width)::value;
                vec sum[E] = {};
                for (int key = 0; key <= query; key++) {
                    UNROLLED for (int i = 0; i < E; i++) {
                        sum[i] = fused(pattern[query][key], x[key * GROUP * W + e + i], sum[i]);
                    }
                }
                vec* row = y + (Y == W ? query : query - FIRST) * GROUP * Y + e;
                UNROLLED for (int i = 0; i < E; i++) row[i] = sum[i];
            });
        }
    }

    // y[key] += the sum over pattern[query][key] x[query]; x has X channels a row.
    template <int X>
    static void mix_backward(const Pattern& pattern, const vec* x, vec* y) {
        for (int key = 0; key < LAST; key++) {
            blocks<D_HEAD, SUMS / 2>([&](int e, auto width) {
                constexpr int E = decltype(width)::value;
                vec sum[E], *row = y + key * GROUP * W + e;
                UNROLLED for (int i = 0; i < E; i++) sum[i] = row[i];
                for (int query = std::max(key, FIRST); query < LAST; query++) {
                    const vec* right = x + (X == W ? query : query - FIRST) * GROUP * X + e;
                    UNROLLED for (int i = 0; i < E; i++) {
                        sum[i] = fused(pattern[query][key], right[i], sum[i]);
                    }
                }
                UNROLLED for (int i = 0; i < E; i++) row[i] = sum[i];
            });
        }
    }

    // ---- the loss, and backwards

    // The sum of the losses by lane, each times its weight; logits become its gradient.
    vec loss() {
        vec sum_of_all = all(0);
        for (int n = 0; n < N; n++) {
            vec *row = logits + n * VOCAB, most = row[0], sum = all(0), right = all(0);
            const vec* aim = aims + n * VOCAB;
            for (int v = 1; v < VOCAB; v++) most = larger(most, row[v]);
            for (int v = 0; v < VOCAB; v++) {
                row[v] = row[v] - most;
                right = fused(aim[v], row[v], right);
                sum += row[v] = exponential(row[v]);
            }
            sum_of_all += fused(counted[n], logarithm(sum), all(0) - right);
            const vec scale = counted[n] / sum;
            for (int v = 0; v < VOCAB; v++) row[v] = fused(row[v], scale, all(0) - aim[v]);
        }
        return sum_of_all;
    }

    void backward(const real* w, vec* g) {
        weight_gradient<N, D_MODEL, VOCAB>(normal, logits, g + UNEMBED, g + UNEMBED_BIAS);
        product<N, VOCAB, D_MODEL, SET, true>(logits, w + UNEMBED, dnormal);
        std::memset(residual, 0, sizeof residual);  // from here on its gradient
        normalise_backward<N>(normal, inverse, dnormal, residual);
        for (int layer = LAYERS - 1; layer >= 0; layer--) {
            const int start = BLOCKS + layer * BLOCK;
            block_backward(layer, w + start, g + start);
        }
        weight_gradient<N, VOCAB, D_MODEL>(read, residual, g + EMBED);
        for (int n = 0; n < N; n++) {
            vec* position = g + POS_EMBED + (FIRST + n / GROUP) * D_MODEL;
            for (int d = 0; d < D_MODEL; d++) position[d] += residual[n * D_MODEL + d];
        }
    }

    void block_backward(int layer, const real* w, vec* g) {
        Layer& a = layers[layer];
        weight_gradient<N, D_MLP, D_MODEL>(a.post, residual, g + MLP_OUT, g + MLP_OUT_BIAS);
        product<N, D_MODEL, D_MLP, SET, true>(residual, w + MLP_OUT, dpost);
        for (int i = 0; i < N * D_MLP; i++) dpost[i] *= a.slope[i];
        weight_gradient<N, D_MODEL, D_MLP>(a.normal2, dpost, g + MLP_IN, g + MLP_IN_BIAS);
        product<N, D_MLP, D_MODEL, SET, true>(dpost, w + MLP_IN, dnormal);
        normalise_backward<N>(a.normal2, a.inverse2, dnormal, residual);

        weight_gradient<N, D_MODEL, D_MODEL>(a.z, residual, g + OUT, g + OUT_BIAS);
        product<N, D_MODEL, D_MODEL, SET, true>(residual, w + OUT, dz);
        for (int group = 0; group < GROUP; group++) {
            for (int head = 0; head < HEADS; head++) {
                const int start = group * W + head * D_HEAD;
                const vec *q = a.qkv + start, *k = q + D_MODEL, *v = k + D_MODEL;
                vec *dq = a.dqkv + start, *dk = dq + D_MODEL, *dv = dk + D_MODEL;
                const vec* dz_head = dz + group * D_MODEL + head * D_HEAD;
                const Pattern& pattern = a.pattern[group][head];
                overlap<D_MODEL>(dz_head, v, dpattern);
                mix_backward<D_MODEL>(pattern, dz_head, dv);
                for (int query = FIRST; query < LAST; query++) {
                    vec mean = all(0), *slope = dpattern[query];
                    const vec* chance = pattern[query];
                    for (int key = 0; key <= query; key++) {
                        mean = fused(chance[key], slope[key], mean);
                    }
                    for (int key = 0; key <= query; key++) {
                        slope[key] = chance[key] * (slope[key] - mean);
                    }
                }
                mix<W>(dpattern, k, dq);
                mix_backward<W>(dpattern, q, dk);
            }
        }
        each_past(layer, [&](int i, real*, Beginnings& from, int j) {
            ((real*)from.layers[layer].dqkv)[j] += ((const real*)a.dqkv)[i];
        });
        vec* dqkv = a.dqkv + OWN * W;
        weight_gradient<N, D_MODEL, W>(a.normal1, dqkv, g + QKV, g + QKV_BIAS);
        product<N, W, D_MODEL, SET, true>(dqkv, w + QKV, dnormal);
        normalise_backward<N>(a.normal1, a.inverse1, dnormal, residual);
    }
};
