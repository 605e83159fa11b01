// Trains many small transformers, a number of steps in one call.
//
// A model's step is: draw its windows, fold LayerNorm into the matrices, loss and gradient of each
// part of the windows, unfold, clip, AdamW. Each of these has one order of operations, so that a
// model's bits depend on its recipe and seed alone: not on the threads, on the models beside it, on
// the processor or on the compiler.
//
// Set on the compiler's command line: REAL, POS, VOCAB, D_MODEL, HEADS, D_MLP, LAYERS, BIAS, TIED
// (whether the readout is the embedding, transposed), and LayerNorm's EPSILON.

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "tile.h"

// ---- folding

// A matrix that reads a LayerNorm: where its weights stand, and where they stand once folded.
struct Reader {
    int norm, weight, down, across, columns, folded, width, bias;
    real scale;
};

template <class Body>
void each_reader(Body body) {
    const real q_scale = real(1 / std::sqrt(double(D_HEAD)));
    for (int layer = 0; layer < LAYERS; layer++) {
        const int qkv = BLOCKS + layer * BLOCK + QKV, in = BLOCKS + layer * BLOCK + MLP_IN;
        for (int i = 0; i < 3 * HEADS; i++) {  // role by role, head by head
            body(Reader{qkv - QKV + LN1, qkv + i * D_MODEL * D_HEAD, D_HEAD, 1, D_HEAD,
                        qkv + i * D_HEAD, D_QKV, qkv + D_MODEL * D_QKV + i * D_HEAD,
                        i < HEADS ? q_scale : 1});
        }
        body(Reader{in - MLP_IN + LN2, in, D_MLP, 1, D_MLP, in, D_MLP, in + D_MODEL * D_MLP, 1});
    }
    body(Reader{LN_FINAL, TIED ? EMBED : UNEMBED, TIED ? 1 : VOCAB, TIED ? D_MODEL : 1, VOCAB,
                UNEMBED, VOCAB, UNEMBED + D_MODEL * VOCAB, 1});
}

void fold(const real* p, real* f) {
    std::copy_n(p, PARAMETERS, f);
    std::fill(f + PARAMETERS, f + SIZE, real(0));
    each_reader([&](Reader r) {
        for (int c = 0; c < r.columns; c++) {
            real shift = BIAS ? f[r.bias + c] : 0;
            for (int d = 0; d < D_MODEL; d++) {
                const real weight = p[r.weight + d * r.down + c * r.across];
                f[r.folded + d * r.width + c] = p[r.norm + d] * weight * r.scale;
                if (BIAS) shift += p[r.norm + D_MODEL + d] * weight;
            }
            if (BIAS) f[r.bias + c] = shift * r.scale;
        }
    });
}

// From the gradient of the folded parameters to that of the parameters.
void unfold(const real* p, const real* df, real* dp) {
    std::copy_n(df, SIZE, dp);
    each_reader([&](Reader r) {
        if (r.weight != EMBED) std::fill_n(dp + r.weight, D_MODEL * r.columns, real(0));
        for (int d = 0; d < D_MODEL; d++) {
            real gain = 0, shift = 0;
            for (int c = 0; c < r.columns; c++) {
                const int at = r.weight + d * r.down + c * r.across;
                const real slope = df[r.folded + d * r.width + c] * r.scale;
                gain += p[at] * slope;
                dp[at] += p[r.norm + d] * slope;
                if (BIAS) {
                    const real along = df[r.bias + c] * r.scale;
                    shift += p[at] * along;
                    dp[at] += p[r.norm + D_MODEL + d] * along;
                }
            }
            dp[r.norm + d] += gain;
            if (BIAS) dp[r.norm + D_MODEL + d] += shift;
        }
        for (int c = 0; BIAS && c < r.columns; c++) dp[r.bias + c] *= r.scale;
    });
}

// ---- draws: Philox4x64-10 (Salmon et al. 2011), the numbers of numpy.random.Philox

struct Draws {
    std::uint64_t seed, step, drawn = 0, block[4] = {};

    // A number below n; the low bits of a word are left out.
    int below(std::uint64_t n) {
        if (drawn % 4 == 0) generate();
        return int((block[drawn++ % 4] >> 32) * n >> 32);
    }

    void generate() {
        using wide = unsigned __int128;
        std::uint64_t c[4] = {drawn / 4 + 1, step, 0, 0}, k[2] = {seed, 0};
        for (int round = 0; round < 10; round++) {
            const wide a = wide(0xD2E7470EE14C6C93) * c[0], b = wide(0xCA5A826395121157) * c[2];
            const std::uint64_t next[4] = {std::uint64_t(b >> 64) ^ c[1] ^ k[0], std::uint64_t(b),
                                           std::uint64_t(a >> 64) ^ c[3] ^ k[1], std::uint64_t(a)};
            std::copy_n(next, 4, c);
            k[0] += 0x9E3779B97F4A7C15;
            k[1] += 0xBB67AE8584CAA73B;
        }
        std::copy_n(c, 4, block);
    }
};

// ---- what a model is trained on, and how; the same structures as in __init__.py

struct Data {
    const std::int32_t* rows;     // [count][width]: windows, or lines; negative is no character
    const std::int32_t* lengths;  // of lines, from which windows are cut; null if rows are windows
    std::int64_t count, width, batch;  // a batch of 0 is every row once
    std::uint64_t seed;
};

// Rows of the embedding after each step: (left + rate * left_by_rate) x rows x right + constant.
struct Projection {
    const std::int64_t* rows;
    std::int64_t count;
    const real *left, *left_by_rate, *right, *constant;
};

struct Settings {
    const real* rates;  // [step][3]: learning rate, and Adam's corrections of mean and square
    const real *rate_of, *decay_of;  // [PARAMETERS]: factor of the rate, and weight decay
    real beta1, beta2, epsilon, clip;
};

using Window = std::array<std::int32_t, POS + 1>;

struct Batch {
    std::vector<Window> windows;
    std::vector<real> weights;  // of each window's summed loss

    void draw(const Data& data, std::uint64_t step) {
        windows.clear();
        weights.clear();
        Draws draws{data.seed, step};
        if (data.lengths) {
            cut(data, draws);
        } else {
            std::vector<int> times(data.count, data.batch ? 0 : 1);
            for (int i = 0; i < data.batch; i++) times[draws.below(data.count)]++;
            for (int row = 0; row < data.count; row++) {
                if (!times[row]) continue;
                windows.emplace_back();
                std::copy_n(data.rows + row * data.width, POS + 1, windows.back().begin());
                weights.push_back(real(times[row]));
            }
        }
        std::int64_t characters = 0;
        for (std::size_t i = 0; i < windows.size(); i++) {
            for (int pos = 1; pos <= POS; pos++) {
                characters += windows[i][pos] >= 0 ? std::int64_t(weights[i]) : 0;
            }
        }
        for (real& weight : weights) weight = weight / real(characters);
    }

    // The most positions that any of some windows predicts at; all later ones are padding.
    int predicted(int first, int count) const {
        int most = 0;
        for (int i = first; i < first + count; i++) {
            for (int pos = POS; pos > most; pos--) {
                if (windows[i][pos] >= 0) most = pos;
            }
        }
        return most;
    }

    // Windows of an endless file of lines drawn independently, at a uniformly random offset; those
    // with equal prefixes side by side.
    void cut(const Data& data, Draws& draws) {
        const std::int32_t* end = data.lengths + data.count;
        const std::int64_t characters = std::accumulate(data.lengths, end, std::int64_t(0));
        const int lines = 1 + POS / *std::min_element(data.lengths, end);  // that follow the first
        std::vector<Window> drawn(data.batch);
        std::vector<std::pair<std::int64_t, int>> order;
        for (Window& window : drawn) {
            int offset = draws.below(characters), line = 0, filled = 0;
            while (offset >= data.lengths[line]) offset -= data.lengths[line++];
            for (int left = lines;; left--) {
                for (; filled <= POS && offset < data.lengths[line]; offset++) {
                    window[filled++] = data.rows[line * data.width + offset];
                }
                if (!left) break;
                line = draws.below(data.count);
                offset = 0;
            }
            std::int64_t prefix = 0;
            for (int i = 0; i < PREFIX; i++) prefix = prefix * VOCAB + window[i];
            order.emplace_back(prefix, int(order.size()));
        }
        std::sort(order.begin(), order.end());
        for (const auto& [prefix, i] : order) windows.push_back(drawn[i]);
        weights.assign(data.batch, 1);
    }
};

// ---- one model

constexpr int PARTS = 4;  // of a batch, at most: sums of their own, so that threads can share it

struct Workspace {  // of a thread
    Tile<PREFIX, POS> tile;
    Tile<PREFIX, SHORT> short_tile;  // for windows that are mostly padding
    std::vector<Prefixes> prefixes;
    std::vector<int> prefix_of;  // each window's, counted over the tiles of prefixes
    vec gradient[SIZE];

    // Puts each prefix of the windows [from, to) into a slot of its own; returns the tiles in use.
    int put_prefixes(const Batch& batch, int from, int to) {
        int count = 0;
        prefix_of.clear();
        for (int i = from; PREFIX && i < to; i++) {
            const std::int32_t* window = batch.windows[i].data();
            if (i == from || !std::equal(window, window + PREFIX, batch.windows[i - 1].data())) {
                const std::size_t index = count++ / WINDOWS;
                if (index == prefixes.size()) prefixes.emplace_back();
                if (count % WINDOWS == 1) prefixes[index].clear();
            }
            prefix_of.push_back(count - 1);
            prefixes[(count - 1) / WINDOWS].put(window, (count - 1) % WINDOWS, batch.weights[i]);
        }
        tile.prefixes = short_tile.prefixes = prefixes.data();
        return (count + WINDOWS - 1) / WINDOWS;
    }
};

struct Model {
    const real* parameters;
    real* logits = nullptr;  // [window][POS][VOCAB], unless null
    bool with_gradient;
    Batch batch;
    int parts = 0;  // of the batch, once there is one
    std::vector<real> folded = std::vector<real>(SIZE), losses = std::vector<real>(PARTS);
    std::vector<real> unfolded = std::vector<real>(SIZE), gradients;
    std::atomic<int> next{PARTS}, left{0};
    std::int64_t steps = 0;

    // Opens the parts of a batch to all threads.
    void open() {
        if (with_gradient) gradients.resize(PARTS * SIZE);
        fold(parameters, folded.data());
        parts = std::clamp(tiles() / 3, 1, PARTS);
        left = PARTS;
        next = 0;
    }

    int tiles() const { return (int(batch.windows.size()) + WINDOWS - 1) / WINDOWS; }

    int start_of(int part) const {
        return std::min(tiles() * part / parts * WINDOWS, int(batch.windows.size()));
    }

    void compute(int part, Workspace& space) {
        if (part >= parts) return;
        const int from = start_of(part), to = start_of(part + 1);
        const real* w = folded.data();
        vec loss = 0;
        if (with_gradient) std::memset(space.gradient, 0, sizeof space.gradient);
        const int prefix_tiles = space.put_prefixes(batch, from, to);
        for (int k = 0; k < prefix_tiles; k++) space.prefixes[k].forward(w);
        for (int i = from; PREFIX && logits && i < to; i++) {
            const int prefix = space.prefix_of[i - from];
            space.prefixes[prefix / WINDOWS].copy_logits(prefix % WINDOWS, logits_of(i));
        }
        for (int k = 0; k < prefix_tiles; k++) loss += space.prefixes[k].loss();
        const auto compute_tile = [&](auto& tile, int first, int count) {
            tile.clear();
            for (int k = 0; k < count; k++) {
                tile.put(batch.windows[first + k].data(), k, batch.weights[first + k]);
                tile.prefix_of[k] = PREFIX ? space.prefix_of[first + k - from] : 0;
            }
            tile.forward(w);
            for (int k = 0; logits && k < count; k++) tile.copy_logits(k, logits_of(first + k));
            loss += tile.loss();
            if (with_gradient) tile.backward(w, space.gradient);
        };
        for (int first = from; first < to; first += WINDOWS) {
            const int count = std::min(WINDOWS, to - first);
            if (!logits && batch.predicted(first, count) <= SHORT) {
                compute_tile(space.short_tile, first, count);
            } else {
                compute_tile(space.tile, first, count);
            }
        }
        losses[part] = sum_of_lanes(loss);
        if (!with_gradient) return;
        for (int k = 0; k < prefix_tiles; k++) space.prefixes[k].backward(w, space.gradient);
        real* sums = gradients.data() + part * SIZE;
        for (int i = 0; i < SIZE; i++) sums[i] = sum_of_lanes(space.gradient[i]);
    }

    real* logits_of(std::int64_t window) const { return logits + window * POS * VOCAB; }

    // The gradient of the parameters, from those of the parts.
    const real* gradient() {
        for (int part = 1; part < parts; part++) {
            for (int i = 0; i < SIZE; i++) gradients[i] += gradients[part * SIZE + i];
        }
        unfold(parameters, gradients.data(), unfolded.data());
        return unfolded.data();
    }
};

// ---- the optimizer

real norm(const real* x) {
    vec squares = 0;
    for (int i = 0; i < PARAMETERS; i += LANES) {
        vec part = 0;
        std::memcpy(&part, x + i, std::min(LANES, PARAMETERS - i) * sizeof(real));
        squares = fused(part, part, squares);
    }
    return std::sqrt(sum_of_lanes(squares));
}

// AdamW (Loshchilov and Hutter 2019) on one model, its gradient clipped to a norm before.
void update(real* p, real* mean, real* square, const real* gradient, const Settings& settings,
            const real* rates) {
    const real bound = settings.clip / (norm(gradient) + real(1e-6));
    const real scale = bound > 1 ? 1 : bound;  // in this order a NaN stays one
    for (int i = 0; i < PARAMETERS; i++) {
        const real g = gradient[i] * scale, rate = rates[0] * settings.rate_of[i];
        mean[i] = mean[i] + (g - mean[i]) * (1 - settings.beta1);
        square[i] = square[i] * settings.beta2 + g * g * (1 - settings.beta2);
        const real size = std::sqrt(square[i]) * rates[2] + settings.epsilon;
        const real kept = p[i] - p[i] * (rate * settings.decay_of[i]);
        p[i] = kept - rate * rates[1] * mean[i] / size;
    }
}

void project(real* p, const Projection& map, real rate) {
    const auto row = [&](int i) { return p + EMBED + map.rows[i] * D_MODEL; };
    std::vector<real> mixed(map.count * D_MODEL);
    for (int i = 0; i < map.count * map.count; i++) {
        const real left = map.left[i] + rate * map.left_by_rate[i];
        real* sum = mixed.data() + i / map.count * D_MODEL;
        for (int d = 0; d < D_MODEL; d++) sum[d] += left * row(i % map.count)[d];
    }
    for (int i = 0; i < map.count * D_MODEL; i++) {
        const real* left = mixed.data() + i / D_MODEL * D_MODEL;
        real sum = 0;
        for (int k = 0; k < D_MODEL; k++) sum += left[k] * map.right[k * D_MODEL + i % D_MODEL];
        row(i / D_MODEL)[i % D_MODEL] = sum + map.constant[i];
    }
}

// ---- all models on all threads

// Treats numbers below the least normal one, 1e-38, as 0 in this thread: some processors compute
// with them so slowly that a step takes ten times as long.
void flush_denormals() {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#else
    std::uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    asm volatile("msr fpcr, %0" ::"r"(control | (1 << 24)));
#endif
}

// Whether memory and threads sufficed for what body does: no exception may leave C++ or a thread.
template <class Body>
int succeeds(Body body) {
    try {
        body();
        return 1;
    } catch (const std::exception&) {
        return 0;
    }
}

// Computes models part by part. Before the first and after the last part of a model's batch it
// calls advance on the model, which opens the parts of another batch or returns false. A thread
// stays with a model as long as that has parts left.
template <class Advance>
void work(std::vector<Model>& models, int threads, Advance advance) {
    const int count = int(models.size());
    threads = std::min(threads, count * PARTS);
    std::atomic<int> open{0};
    std::atomic<bool> failed{false};
    for (Model& model : models) open += advance(model);
    auto one = [&](int thread) {
        flush_denormals();
        auto space = std::make_unique<Workspace>();
        int tried = 0;
        for (int home = thread * count / threads; open > 0 && !failed;) {
            Model& model = models[home];
            const int part = model.next < PARTS ? model.next++ : PARTS;
            if (part < PARTS) {
                model.compute(part, *space);
                if (--model.left == 0 && !advance(model)) open--;
                tried = 0;
            } else {
                home = (home + 1) % count;
                if (++tried % count == 0) std::this_thread::yield();
            }
        }
    };
    const auto guarded = [&](auto body) {
        if (!succeeds(body)) failed = true;
    };
    std::vector<std::thread> others;
    guarded([&] {
        for (int i = 0; i < threads; i++) others.emplace_back([&, i] { guarded([&] { one(i); }); });
    });
    for (auto& other : others) other.join();
    if (failed) throw std::bad_alloc();
}

// Trains models [0, count) from one step up to another; parameters and Adam's averages are
// [count][PARAMETERS]. After each step, unless null, rows of the embedding are projected, and a
// model whose parameters have a larger norm than its own in norms is scaled down to that. Returns 0
// if memory or threads were lacking.
extern "C" int train(int count, const Data* data, const Projection* projections, const real* norms,
                     const Settings* settings, std::int64_t from, std::int64_t until, int threads,
                     real* parameters, real* means, real* squares) {
    return succeeds([&] {
        std::vector<Model> models(count);
        work(models, threads, [&](Model& model) {
            const std::int64_t i = &model - models.data(), start = i * PARAMETERS;
            real* p = parameters + start;
            if (model.parts) {
                const real* rates = settings->rates + 3 * model.steps++;
                update(p, means + start, squares + start, model.gradient(), *settings, rates);
                if (projections) project(p, projections[i], rates[0]);
                if (const real scale = norms ? norms[i] / norm(p) : 1; scale < 1) {
                    for (int k = 0; k < PARAMETERS; k++) p[k] *= scale;
                }
            }
            if (from + model.steps >= until) return false;
            model.parameters = p;
            model.with_gradient = true;
            model.batch.draw(data[i], from + model.steps);
            model.open();
            return true;
        });
    });
}

// Each model's loss on windows [count][batch], weights [count][batch]; and, unless null, gradients
// [count][PARAMETERS] and logits [count][batch][POS][VOCAB]. Returns 0 as train does.
extern "C" int evaluate(int count, const Window* windows, const real* weights, std::int64_t batch,
                        int threads, const real* parameters, real* losses, real* gradients,
                        real* logits) {
    return succeeds([&] {
        std::vector<Model> models(count);
        work(models, threads, [&](Model& model) {
            const std::int64_t i = &model - models.data(), start = i * batch;
            if (model.parts) {
                for (int part = 0; part < model.parts; part++) losses[i] += model.losses[part];
                if (gradients)
                    std::copy_n(model.gradient(), PARAMETERS, gradients + i * PARAMETERS);
                return false;
            }
            std::int64_t end =
                start + batch;  // without windows that only fill up and move the parts
            while (!logits && end > start && weights[end - 1] == 0) end--;
            model.batch = {{windows + start, windows + end}, {weights + start, weights + end}};
            model.parameters = parameters + i * PARAMETERS;
            model.with_gradient = gradients;
            if (logits) model.logits = logits + start * POS * VOCAB;
            model.open();
            return true;
        });
    });
}
