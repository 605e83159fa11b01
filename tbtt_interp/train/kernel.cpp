// The loss of many small transformers and its gradient, in one pass over their windows.
//
// A vector holds one number of LANES windows, a window a lane. Every operation is then plain
// arithmetic between vectors, however narrow the model, and a tile of LANES windows stays in the
// core's own cache with all its activations, forwards and backwards. LayerNorm's scales and
// attention's are folded into the matrices before (kernel.py), so only its centring is left here.
//
// Set on the compiler's command line: REAL, POS, VOCAB, D_MODEL, HEADS, D_MLP, LAYERS, BIAS, and
// LayerNorm's EPSILON.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "lanes.h"

using token = std::int64_t;

// ---- the flat parameters

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

// ---- one tile of windows

struct Activations {
    vec normal1[POS * D_MODEL], inverse1[POS], qkv[POS * 3 * D_MODEL], pattern[HEADS][POS][POS];
    vec z[POS * D_MODEL], normal2[POS * D_MODEL], inverse2[POS];
    vec post[POS * D_MLP], slope[POS * D_MLP];
};

struct Tile {
    Activations layers[LAYERS];
    vec residual[POS * D_MODEL], normal[POS * D_MODEL], inverse[POS], logits[POS * VOCAB];
    vec dnormal[POS * D_MODEL], dz[POS * D_MODEL], dqkv[POS * 3 * D_MODEL], dpost[POS * D_MLP];
    vec dpattern[POS][POS];

    void forward(const real* w, const token* tokens) {
        for (int pos = 0; pos < POS; pos++) {
            for (int lane = 0; lane < LANES; lane++) {
                const real* row = w + EMBED + tokens[lane * POS + pos] * D_MODEL;
                for (int d = 0; d < D_MODEL; d++) residual[pos * D_MODEL + d][lane] = row[d];
            }
            for (int d = 0; d < D_MODEL; d++) {
                residual[pos * D_MODEL + d] += w[POS_EMBED + pos * D_MODEL + d];
            }
        }
        for (int layer = 0; layer < LAYERS; layer++) {
            block_forward(layers[layer], w + BLOCKS + layer * BLOCK);
        }
        normalise(residual, normal, inverse);
        product<D_MODEL, VOCAB>(normal, w + UNEMBED, logits, w + UNEMBED_BIAS);
    }

    void block_forward(Activations& a, const real* w) {
        normalise(residual, a.normal1, a.inverse1);
        product<D_MODEL, 3 * D_MODEL>(a.normal1, w + QKV, a.qkv, w + QKV_BIAS);
        for (int head = 0; head < HEADS; head++) {
            const vec* q = a.qkv + head * D_HEAD;
            auto pattern = a.pattern[head];
            overlap<3 * D_MODEL, 3 * D_MODEL>(q, q + D_MODEL, pattern);
            for (int query = 0; query < POS; query++) {
                vec most = pattern[query][0], sum = {};
                for (int key = 1; key <= query; key++) most = larger(most, pattern[query][key]);
                for (int key = 0; key <= query; key++) {
                    sum += pattern[query][key] = exponential(pattern[query][key] - most);
                }
                sum = real(1) / sum;
                for (int key = 0; key <= query; key++) pattern[query][key] *= sum;
            }
            mix<3 * D_MODEL, D_MODEL>(pattern, q + 2 * D_MODEL, a.z + head * D_HEAD);
        }
        product<D_MODEL, D_MODEL, ADD>(a.z, w + OUT, residual, w + OUT_BIAS);
        normalise(residual, a.normal2, a.inverse2);
        product<D_MODEL, D_MLP>(a.normal2, w + MLP_IN, a.post, w + MLP_IN_BIAS);
        for (int i = 0; i < POS * D_MLP; i++) gelu(a.post[i], a.post[i], a.slope[i]);
        product<D_MLP, D_MODEL, ADD>(a.post, w + MLP_OUT, residual, w + MLP_OUT_BIAS);
    }

    // The sum of the windows' losses, each times its weight; logits become its gradient.
    real loss(const token* targets, vec weight) {
        vec sum_of_all = {};
        for (int pos = 0; pos < POS; pos++) {
            vec *row = logits + pos * VOCAB, most = row[0], sum = {}, right = {}, counted = weight;
            for (int v = 1; v < VOCAB; v++) most = larger(most, row[v]);
            for (int lane = 0; lane < LANES; lane++) {
                const token target = targets[lane * POS + pos];
                if (target < 0) counted[lane] = 0;
                else right[lane] = row[target][lane] - most[lane];
            }
            for (int v = 0; v < VOCAB; v++) sum += row[v] = exponential(row[v] - most);
            for (int lane = 0; lane < LANES; lane++) {
                sum_of_all[lane] += counted[lane] * (std::log(sum[lane]) - right[lane]);
            }
            const vec scale = counted / sum;
            for (int v = 0; v < VOCAB; v++) row[v] *= scale;
            for (int lane = 0; lane < LANES; lane++) {
                const token target = targets[lane * POS + pos];
                if (target >= 0) row[target][lane] -= counted[lane];
            }
        }
        return total(sum_of_all);
    }

    void backward(const real* w, const token* tokens, vec* g, real* dembed) {
        weight_gradient<D_MODEL, VOCAB>(normal, logits, g + UNEMBED, g + UNEMBED_BIAS);
        product<VOCAB, D_MODEL, SET, true>(logits, w + UNEMBED, dnormal);
        std::memset(residual, 0, sizeof residual);  // from here on its gradient
        normalise_backward(normal, inverse, dnormal, residual);
        for (int layer = LAYERS - 1; layer >= 0; layer--) {
            const int start = BLOCKS + layer * BLOCK;
            block_backward(layers[layer], w + start, g + start);
        }
        for (int i = 0; i < POS * D_MODEL; i++) g[POS_EMBED + i] += residual[i];
        for (int pos = 0; pos < POS; pos++) {
            for (int lane = 0; lane < LANES; lane++) {
                real* row = dembed + tokens[lane * POS + pos] * D_MODEL;
                for (int d = 0; d < D_MODEL; d++) row[d] += residual[pos * D_MODEL + d][lane];
            }
        }
    }

    void block_backward(const Activations& a, const real* w, vec* g) {
        weight_gradient<D_MLP, D_MODEL>(a.post, residual, g + MLP_OUT, g + MLP_OUT_BIAS);
        product<D_MODEL, D_MLP, SET, true>(residual, w + MLP_OUT, dpost);
        for (int i = 0; i < POS * D_MLP; i++) dpost[i] *= a.slope[i];
        weight_gradient<D_MODEL, D_MLP>(a.normal2, dpost, g + MLP_IN, g + MLP_IN_BIAS);
        product<D_MLP, D_MODEL, SET, true>(dpost, w + MLP_IN, dnormal);
        normalise_backward(a.normal2, a.inverse2, dnormal, residual);

        weight_gradient<D_MODEL, D_MODEL>(a.z, residual, g + OUT, g + OUT_BIAS);
        product<D_MODEL, D_MODEL, SET, true>(residual, w + OUT, dz);
        for (int head = 0; head < HEADS; head++) {
            const vec *q = a.qkv + head * D_HEAD, *k = q + D_MODEL, *v = k + D_MODEL;
            const vec* dz_head = dz + head * D_HEAD;
            vec *dq = dqkv + head * D_HEAD, *dk = dq + D_MODEL, *dv = dk + D_MODEL;
            auto pattern = a.pattern[head];
            overlap<D_MODEL, 3 * D_MODEL>(dz_head, v, dpattern);
            mix<D_MODEL, 3 * D_MODEL, true>(pattern, dz_head, dv);
            for (int query = 0; query < POS; query++) {
                vec mean = {};
                for (int key = 0; key <= query; key++) {
                    mean += pattern[query][key] * dpattern[query][key];
                }
                for (int key = 0; key <= query; key++) {
                    dpattern[query][key] = pattern[query][key] * (dpattern[query][key] - mean);
                }
            }
            mix<3 * D_MODEL, 3 * D_MODEL>(dpattern, k, dq);
            mix<3 * D_MODEL, 3 * D_MODEL, true>(dpattern, q, dk);
        }
        weight_gradient<D_MODEL, 3 * D_MODEL>(a.normal1, dqkv, g + QKV, g + QKV_BIAS);
        product<3 * D_MODEL, D_MODEL, SET, true>(dqkv, w + QKV, dnormal);
        normalise_backward(a.normal1, a.inverse1, dnormal, residual);
    }
};

// ---- all windows of all models

struct Workspace {
    Tile tile;
    vec gradient[SIZE];

    // Adds up a part of a model's windows.
    void add(const real* w, const token* tokens, const token* targets, const real* weights,
             int windows, real* loss, real* gradient_sum) {
        std::memset(gradient, 0, sizeof gradient);
        for (int first = 0; first < windows; first += LANES) {
            token read[LANES * POS] = {}, predict[LANES * POS] = {};
            vec weight = {};  // of lanes without a window, none
            const int there = windows - first < LANES ? windows - first : LANES;
            std::memcpy(read, tokens + first * POS, there * POS * sizeof(token));
            std::memcpy(predict, targets + first * POS, there * POS * sizeof(token));
            for (int lane = 0; lane < there; lane++) weight[lane] = weights[first + lane];
            tile.forward(w, read);
            *loss += tile.loss(predict, weight);
            if (gradient_sum) tile.backward(w, read, gradient, gradient_sum + EMBED);
        }
        if (gradient_sum) {
            for (int i = POS_EMBED; i < SIZE; i++) gradient_sum[i] += total(gradient[i]);
        }
    }
};

// Adds to losses [seed][part] and, unless null, to gradients [seed][part][SIZE]. Each part is
// summed by one thread in one order, so the result does not depend on how many there are.
extern "C" void loss_and_gradient(const real* parameters, const token* tokens, const token* targets,
                                  const real* weights, int seeds, int batch, int parts, int threads,
                                  real* losses, real* gradients) {
    std::atomic<int> next{0};
    auto work = [&] {
        auto space = std::make_unique<Workspace>();
        for (int task; (task = next++) < seeds * parts;) {
            const int seed = task / parts, part = task % parts;
            const int tiles = (batch + LANES - 1) / LANES;
            const int from = tiles * part / parts * LANES;
            const int to = std::min(tiles * (part + 1) / parts * LANES, batch);
            const long start = long(seed) * batch + from;
            space->add(parameters + long(seed) * SIZE, tokens + start * POS, targets + start * POS,
                       weights + start, to - from, losses + task,
                       gradients ? gradients + long(task) * SIZE : nullptr);
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
}
