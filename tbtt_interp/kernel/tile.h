// One model on a tile of windows: forwards, the loss, and backwards.
//
// A vec holds one number of sixteen windows, and a tile GROUP such vecs at each position. Every
// operation is then plain arithmetic between vecs, however narrow the model, and a tile stays in
// the core's own cache with all its activations. LayerNorm's scales and attention's are folded into
// the matrices before (kernel.cpp), so only its centring is left here.
//
// Windows with equal prefixes of PREFIX characters share these positions: they are computed once,
// in a tile of prefixes, and attention reads their keys and values from there.

#include <algorithm>

#include "lanes.h"

constexpr int D_HEAD = D_MODEL / HEADS, D_QKV = 3 * D_MODEL;
constexpr int PREFIX = POS >= 6 ? 3 : 0;
constexpr int GROUP = POS <= 12 ? 2 : 1;
constexpr int SHORT = POS < 24 ? POS : POS / 4;  // positions of a short tile
constexpr int WINDOWS = GROUP * LANES;  // of a tile

// ---- where parameters begin: HookedTransformer's, in the order of model.py. The folded ones stand
// in the same places; the readout is at the end.

constexpr int EMBED = 0, POS_EMBED = VOCAB * D_MODEL;
constexpr int BLOCKS = POS_EMBED + POS * D_MODEL;
constexpr int QKV = D_MODEL;  // in a block, which begins with its first LayerNorm
constexpr int OUT = QKV + D_MODEL * D_QKV;
constexpr int LN2 = OUT + D_MODEL * D_MODEL;
constexpr int MLP_IN = LN2 + D_MODEL;
constexpr int MLP_OUT = MLP_IN + D_MODEL * D_MLP;
constexpr int BLOCK = MLP_OUT + D_MLP * D_MODEL;
constexpr int LN_FINAL = BLOCKS + LAYERS * BLOCK;
constexpr int UNEMBED = LN_FINAL + D_MODEL;
constexpr int SIZE = UNEMBED + D_MODEL * VOCAB;
constexpr int PARAMETERS = TIED ? UNEMBED : SIZE;  // that are trained

// ---- LayerNorm and softmax

template <int N>
inline void normalise(const vec* x, vec* hat, vec* inverse) {
    for (int n = 0; n < N; n++, x += D_MODEL, hat += D_MODEL) {
        vec mean = 0, variance = 0;
        for (int d = 0; d < D_MODEL; d++) mean += x[d];
        mean *= 1.0 / D_MODEL;
        for (int d = 0; d < D_MODEL; d++) {
            hat[d] = x[d] - mean;
            variance = fused(hat[d], hat[d], variance);
        }
        variance = fused(variance, 1.0 / D_MODEL, EPSILON);
        inverse[n] = 1 / by_lanes(variance, [](real value) { return std::sqrt(value); });
        for (int d = 0; d < D_MODEL; d++) hat[d] *= inverse[n];
    }
}

// Adds to dx the gradient that dhat is of a normalised vector.
template <int N>
inline void normalise_backward(const vec* hat, const vec* inverse, const vec* dhat, vec* dx) {
    for (int n = 0; n < N; n++, hat += D_MODEL, dhat += D_MODEL, dx += D_MODEL) {
        vec mean = 0, along = 0;
        for (int d = 0; d < D_MODEL; d++) {
            mean += dhat[d];
            along = fused(dhat[d], hat[d], along);
        }
        mean *= 1.0 / D_MODEL;
        along *= -1.0 / D_MODEL;
        for (int d = 0; d < D_MODEL; d++) {
            dx[d] = fused(inverse[n], fused(hat[d], along, dhat[d] - mean), dx[d]);
        }
    }
}

// In place, of the first `size` of `width` logits; the others' probabilities are 0.
inline void softmax(vec* x, int size, int width) {
    vec most = x[0], sum = 0;
    for (int i = 1; i < size; i++) most = larger(most, x[i]);
    for (int i = 0; i < size; i++) sum += x[i] = exponential(x[i] - most);
    sum = 1 / sum;
    for (int i = 0; i < size; i++) x[i] *= sum;
    for (int i = size; i < width; i++) x[i] = 0;
}

// Turns the gradient of probabilities into that of their logits.
inline void softmax_backward(const vec* probability, vec* gradient, int size) {
    vec mean = 0;
    for (int i = 0; i < size; i++) mean = fused(probability[i], gradient[i], mean);
    for (int i = 0; i < size; i++) gradient[i] = probability[i] * (gradient[i] - mean);
}

// ---- the tile

template <int FIRST, int LAST>
struct Tile;
using Prefixes = Tile<0, PREFIX ? PREFIX : 1>;

// Positions FIRST to LAST. Rows of arrays are positions, and in each the GROUP vecs.
template <int FIRST, int LAST>
struct Tile {
    static constexpr int QUERIES = LAST - FIRST, N = GROUP * QUERIES;
    static constexpr int OWN = GROUP * FIRST * D_QKV;  // where own queries, keys and values begin
    // a prefix's keys have gradients already, from its windows
    static constexpr Start OF_KEYS = LAST == PREFIX ? CONTINUE : SET;

    struct Layer {
        vec normal1[N * D_MODEL], inverse1[N];
        vec qkv[GROUP * LAST * D_QKV], dqkv[GROUP * LAST * D_QKV];
        vec pattern[GROUP * HEADS][QUERIES * LAST];  // [query][key]
        vec z[N * D_MODEL], normal2[N * D_MODEL], inverse2[N], post[N * D_MLP], slope[N * D_MLP];
    };

    // One-hot inputs; weighted one-hot targets, and their summed weight.
    vec tokens[N * VOCAB], targets[N * VOCAB], target_weight[N];
    Layer layers[LAYERS];
    vec residual[N * D_MODEL], normal[N * D_MODEL], inverse[N], logits[N * VOCAB];
    vec dnormal[N * D_MODEL], dz[N * D_MODEL], dpost[N * D_MLP], dpattern[QUERIES * LAST];
    Prefixes* prefixes;  // of all windows, and the one of each window here
    int prefix_of[WINDOWS], filled;  // how many windows are here

    Tile() {}  // leaves the arrays as they are: most are written before they are read

    void clear() {
        std::memset(tokens, 0, sizeof tokens);
        std::memset(targets, 0, sizeof targets);
        std::memset(target_weight, 0, sizeof target_weight);
        for (Layer& layer : layers) std::memset(layer.qkv, 0, OWN * sizeof(vec));  // empty slots
        for (Layer& layer : layers) std::memset(layer.dqkv, 0, FIRST ? 0 : sizeof layer.dqkv);
    }

    // A window's number in an array: slots are the lanes of the GROUP vecs.
    static real& number(vec* x, int position, int width, int column, int slot) {
        const int row = position * GROUP + slot / LANES;
        return ((real*)x)[(row * width + column) * LANES + slot % LANES];
    }

    // Puts a window of POS + 1 characters in a slot; in a tile of prefixes, each further window
    // with the same prefix adds its targets.
    void put(const std::int32_t* window, int slot, real weight) {
        for (int i = 0; i < QUERIES; i++) {
            const int token = window[FIRST + i], target = window[FIRST + i + 1];
            if (token >= 0) number(tokens, i, VOCAB, token, slot) = 1;
            if (target < 0) continue;
            number(targets, i, VOCAB, target, slot) += weight;
            number(target_weight, i, 1, 0, slot) += weight;
        }
    }

    // Copies the windows' logits, and those of their prefixes, into [window][POS][VOCAB].
    void copy_logits(real* to) {
        for (int i = 0; i < filled * LAST * VOCAB; i++) {
            const int slot = i / VOCAB / LAST, pos = i / VOCAB % LAST, prefix = prefix_of[slot];
            vec* shared = pos < FIRST ? prefixes[prefix / WINDOWS].logits : nullptr;
            to[i] = shared ? number(shared, pos, VOCAB, i % VOCAB, prefix % WINDOWS)
                           : number(logits, pos - FIRST, VOCAB, i % VOCAB, slot);
        }
    }

    // Copies the keys and values of windows' prefixes or, backwards, adds their gradients there.
    template <bool BACKWARDS>
    void share_prefixes(int layer) {
        const auto choose = [](auto& of) { return BACKWARDS ? of.dqkv : of.qkv; };
        for (int slot = 0; slot < (FIRST ? filled : 0); slot++) {
            const int prefix = prefix_of[slot], other = prefix % WINDOWS;
            vec* own = choose(layers[layer]);
            vec* shared = choose(prefixes[prefix / WINDOWS].layers[layer]);
            for (int i = 0; i < FIRST; i++) {
                for (int c = D_MODEL; c < D_QKV; c++) {
                    real& here = number(own, i, D_QKV, c, slot);
                    real& there = number(shared, i, D_QKV, c, other);
                    BACKWARDS ? there += here : here = there;
                }
            }
        }
    }

    // The rows of an array that belong to one head and one of the GROUP vecs; of queries (role 0),
    // keys (1) or values (2).
    template <int WIDTH = D_QKV>
    static Matrix<vec, GROUP * WIDTH> head(vec* x, int i, int role = 0) {
        return {x + i / HEADS * WIDTH + role * D_MODEL + i % HEADS * D_HEAD};
    }

    // Where a number of the residual stream has its positional embedding.
    static int place(int i) {
        return POS_EMBED + (FIRST + i / D_MODEL / GROUP) * D_MODEL + i % D_MODEL;
    }

    // ---- forwards

    void forward(const real* w) {
        for (int i = 0; i < N * D_MODEL; i++) residual[i] = w[place(i)];
        linear<N, VOCAB, D_MODEL, CONTINUE>(tokens, w + EMBED, residual);
        for (int layer = 0; layer < LAYERS; layer++) {
            Layer& a = layers[layer];
            const real* block = w + BLOCKS + layer * BLOCK;
            normalise<N>(residual, a.normal1, a.inverse1);
            linear<N, D_MODEL, D_QKV>(a.normal1, block + QKV, a.qkv + OWN);
            share_prefixes<false>(layer);
            for (int i = 0; i < GROUP * HEADS; i++) {
                const auto q = head(a.qkv + OWN, i), k = head(a.qkv, i, 1), v = head(a.qkv, i, 2);
                const Matrix<vec, LAST> pattern{a.pattern[i]};
                product<SET, QUERIES, LAST, D_HEAD>(q, k.transposed(), pattern);
                for (int n = 0; n < QUERIES; n++) softmax(&pattern(n, 0), FIRST + n + 1, LAST);
                product<SET, QUERIES, D_HEAD, LAST>(pattern, v, head<D_MODEL>(a.z, i));
            }
            linear<N, D_MODEL, D_MODEL, CONTINUE>(a.z, block + OUT, residual);
            normalise<N>(residual, a.normal2, a.inverse2);
            linear<N, D_MODEL, D_MLP>(a.normal2, block + MLP_IN, a.post);
            for (int i = 0; i < N * D_MLP; i++) gelu(a.post[i], a.post[i], a.slope[i]);
            linear<N, D_MLP, D_MODEL, CONTINUE>(a.post, block + MLP_OUT, residual);
        }
        normalise<N>(residual, normal, inverse);
        linear<N, D_MODEL, VOCAB>(normal, w + UNEMBED, logits);
    }

    // ---- the loss, and backwards

    // The sum of the losses by lane, each times its weight; logits become its gradient.
    vec loss() {
        vec losses = 0;
        for (int n = 0; n < N; n++) {
            vec *row = logits + n * VOCAB, most = row[0], sum = 0, right = 0;
            const vec* target = targets + n * VOCAB;
            for (int v = 1; v < VOCAB; v++) most = larger(most, row[v]);
            for (int v = 0; v < VOCAB; v++) {
                row[v] = row[v] - most;
                right = fused(target[v], row[v], right);
                sum += row[v] = exponential(row[v]);
            }
            losses += fused(target_weight[n], logarithm(sum), 0 - right);
            const vec scale = target_weight[n] / sum;
            for (int v = 0; v < VOCAB; v++) row[v] = fused(row[v], scale, 0 - target[v]);
        }
        return losses;
    }

    void backward(const real* w, vec* g) {
        linear_backward<N, D_MODEL, VOCAB>(normal, w + UNEMBED, logits, dnormal, g + UNEMBED);
        std::memset(residual, 0, sizeof residual);  // from here on its gradient
        normalise_backward<N>(normal, inverse, dnormal, residual);
        for (int layer = LAYERS - 1; layer >= 0; layer--) {
            Layer& a = layers[layer];
            const real* p = w + BLOCKS + layer * BLOCK;
            vec* dp = g + BLOCKS + layer * BLOCK;
            linear_backward<N, D_MLP, D_MODEL>(a.post, p + MLP_OUT, residual, dpost, dp + MLP_OUT);
            for (int i = 0; i < N * D_MLP; i++) dpost[i] *= a.slope[i];
            linear_backward<N, D_MODEL, D_MLP>(a.normal2, p + MLP_IN, dpost, dnormal, dp + MLP_IN);
            normalise_backward<N>(a.normal2, a.inverse2, dnormal, residual);
            linear_backward<N, D_MODEL, D_MODEL>(a.z, p + OUT, residual, dz, dp + OUT);
            for (int i = 0; i < GROUP * HEADS; i++) {
                const auto q = head(a.qkv + OWN, i), k = head(a.qkv, i, 1), v = head(a.qkv, i, 2);
                const auto dk = head(a.dqkv, i, 1), dv = head(a.dqkv, i, 2);
                const auto dz_head = head<D_MODEL>(dz, i);
                const Matrix<vec, LAST> pattern{a.pattern[i]}, ds{dpattern};
                product<SET, QUERIES, LAST, D_HEAD>(dz_head, v.transposed(), ds);
                for (int n = 0; n < QUERIES; n++) softmax_backward(&pattern(n, 0), &ds(n, 0), LAST);
                product<SET, QUERIES, D_HEAD, LAST>(ds, k, head(a.dqkv + OWN, i));
                product<OF_KEYS, LAST, D_HEAD, QUERIES>(pattern.transposed(), dz_head, dv);
                product<OF_KEYS, LAST, D_HEAD, QUERIES>(ds.transposed(), q, dk);
            }
            share_prefixes<true>(layer);
            linear_backward<N, D_MODEL, D_QKV>(a.normal1, p + QKV, a.dqkv + OWN, dnormal, dp + QKV);
            normalise_backward<N>(a.normal1, a.inverse1, dnormal, residual);
        }
        linear_backward<N, VOCAB, D_MODEL>(tokens, w, residual, nullptr, g + EMBED);
        for (int i = 0; i < N * D_MODEL; i++) g[place(i)] += residual[i];
    }
};
