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
#include <thread>
#include <vector>

#include "tile.h"

// ---- parameters as they are trained, flat: HookedTransformer's names, in the order of model.py

constexpr int W_E = 0, W_POS = W_E + VOCAB * D_MODEL, RAW_BLOCKS = W_POS + POS * D_MODEL;
constexpr int LN1 = 0, W_QKV = LN1 + (1 + BIAS) * D_MODEL, B_QKV = W_QKV + 3 * D_MODEL * D_MODEL;
constexpr int W_O = B_QKV + BIAS * 3 * D_MODEL, LN2 = W_O + D_MODEL * D_MODEL + BIAS * D_MODEL;
constexpr int W_IN = LN2 + (1 + BIAS) * D_MODEL, W_OUT = W_IN + D_MODEL * D_MLP + BIAS * D_MLP;
constexpr int RAW_BLOCK = W_OUT + D_MLP * D_MODEL + BIAS * D_MODEL;
constexpr int LN_FINAL = RAW_BLOCKS + LAYERS * RAW_BLOCK;
constexpr int W_U = LN_FINAL + (1 + BIAS) * D_MODEL;
constexpr int PARAMETERS = TIED ? W_U : W_U + D_MODEL * VOCAB;

// A matrix that reads a LayerNorm: where its weights stand, and where they stand once folded.
struct Reader {
    int norm, weight, down, across, bias;  // bias is -1 where there is none
    int columns, folded, width, folded_bias;
    real scale;
};

template <class Body>
void each_reader(Body body) {
    const real q_scale = real(1 / std::sqrt(double(D_HEAD)));
    for (int layer = 0; layer < LAYERS; layer++) {
        const int raw = RAW_BLOCKS + layer * RAW_BLOCK, folded = BLOCKS + layer * BLOCK;
        for (int i = 0; i < 3 * HEADS; i++) {  // role by role, head by head
            body(Reader{raw + LN1, raw + W_QKV + i * D_MODEL * D_HEAD, D_HEAD, 1,
                        BIAS ? raw + B_QKV + i * D_HEAD : -1, D_HEAD, folded + QKV + i * D_HEAD,
                        3 * D_MODEL, folded + QKV_BIAS + i * D_HEAD, i < HEADS ? q_scale : 1});
        }
        body(Reader{raw + LN2, raw + W_IN, D_MLP, 1, BIAS ? raw + W_IN + D_MODEL * D_MLP : -1,
                    D_MLP, folded + MLP_IN, D_MLP, folded + MLP_IN_BIAS, 1});
    }
    body(Reader{LN_FINAL, TIED ? W_E : W_U, TIED ? 1 : VOCAB, TIED ? D_MODEL : 1, -1, VOCAB,
                UNEMBED, VOCAB, UNEMBED_BIAS, 1});
}

// What folding leaves as it is: calls body(start, folded start, size).
template <class Body>
void each_copy(Body body) {
    body(W_E, EMBED, VOCAB * D_MODEL + POS * D_MODEL);
    for (int layer = 0; layer < LAYERS; layer++) {
        const int raw = RAW_BLOCKS + layer * RAW_BLOCK, folded = BLOCKS + layer * BLOCK;
        body(raw + W_O, folded + OUT, D_MODEL * D_MODEL + BIAS * D_MODEL);
        body(raw + W_OUT, folded + MLP_OUT, D_MLP * D_MODEL + BIAS * D_MODEL);
    }
}

void fold(const real* p, real* f) {
    each_copy([&](int raw, int folded, int size) { std::copy_n(p + raw, size, f + folded); });
    each_reader([&](Reader r) {
        for (int c = 0; c < r.columns; c++) {
            real shift = r.bias < 0 ? 0 : p[r.bias + c];
            for (int d = 0; d < D_MODEL; d++) {
                const real weight = p[r.weight + d * r.down + c * r.across];
                f[r.folded + d * r.width + c] = p[r.norm + d] * weight * r.scale;
                if (BIAS) shift += p[r.norm + D_MODEL + d] * weight;
            }
            if (BIAS) f[r.folded_bias + c] = shift * r.scale;
        }
    });
}

// From the gradient of the folded parameters to that of the parameters.
void unfold(const real* p, const real* df, real* dp) {
    std::fill_n(dp, PARAMETERS, real(0));
    each_copy([&](int raw, int folded, int size) { std::copy_n(df + folded, size, dp + raw); });
    each_reader([&](Reader r) {
        for (int d = 0; d < D_MODEL; d++) {
            real gain = 0, shift = 0;
            for (int c = 0; c < r.columns; c++) {
                const int at = r.weight + d * r.down + c * r.across;
                const real slope = df[r.folded + d * r.width + c] * r.scale;
                gain += p[at] * slope;
                dp[at] += p[r.norm + d] * slope;
                if (BIAS) {
                    const real along = df[r.folded_bias + c] * r.scale;
                    shift += p[at] * along;
                    dp[at] += p[r.norm + D_MODEL + d] * along;
                }
            }
            dp[r.norm + d] += gain;
            if (BIAS) dp[r.norm + D_MODEL + d] += shift;
        }
        if (r.bias >= 0) {
            for (int c = 0; c < r.columns; c++) dp[r.bias + c] = df[r.folded_bias + c] * r.scale;
        }
    });
}

// ---- draws: Philox4x64-10 (Salmon et al. 2011), the numbers of numpy.random.Philox

struct Draws {
    std::uint64_t key[2], step;
    std::uint64_t block[4] = {}, drawn = 0;

    // A number below n; the low bits of a word are left out.
    int below(std::uint64_t n) {
        if (drawn % 4 == 0) generate();
        return int((block[drawn++ % 4] >> 32) * n >> 32);
    }

    void generate() {
        using wide = unsigned __int128;
        std::uint64_t c[4] = {drawn / 4 + 1, step, 0, 0}, k[2] = {key[0], key[1]};
        for (int round = 0; round < 10; round++) {
            const wide a = wide(0xD2E7470EE14C6C93) * c[0], b = wide(0xCA5A826395121157) * c[2];
            const std::uint64_t next[4] = {std::uint64_t(b >> 64) ^ c[1] ^ k[0], std::uint64_t(b),
                                           std::uint64_t(a >> 64) ^ c[3] ^ k[1], std::uint64_t(a)};
            std::copy_n(next, 4, c);
            k[0] += 0x9E3779B97F4A7C15, k[1] += 0xBB67AE8584CAA73B;
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

// Rows of W_E after each step: (left + rate * left_by_rate) x rows x right + constant.
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

    int count() const { return int(weights.size()); }

    void draw(const Data& data, std::int64_t step) {
        windows.clear(), weights.clear();
        Draws draws{{data.seed, 0}, std::uint64_t(step)};
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
        for (int w = 0; w < count(); w++) {
            const auto predicted = std::count_if(windows[w].begin() + 1, windows[w].end(),
                                                 [](std::int32_t c) { return c >= 0; });
            characters += predicted * std::int64_t(weights[w]);
        }
        for (real& weight : weights) weight = weight / real(characters);
    }

    // Windows of an endless file of lines drawn independently, at a uniformly random offset; those
    // that begin alike side by side.
    void cut(const Data& data, Draws& draws) {
        std::int64_t all = 0, least = data.lengths[0];
        for (int i = 0; i < data.count; i++) all += data.lengths[i];
        for (int i = 0; i < data.count; i++) least = std::min<std::int64_t>(least, data.lengths[i]);
        std::vector<Window> drawn(data.batch);
        std::vector<std::pair<std::int64_t, int>> order;
        for (Window& window : drawn) {
            int offset = draws.below(all), line = 0;
            while (offset >= data.lengths[line]) offset -= data.lengths[line++];
            for (int filled = 0, more = 1 + POS / least;; more--) {
                for (; filled <= POS && offset < data.lengths[line]; offset++) {
                    window[filled++] = data.rows[line * data.width + offset];
                }
                if (!more) break;
                line = draws.below(data.count), offset = 0;
            }
            std::int64_t beginning = 0;
            for (int i = 0; i < CUT; i++) beginning = beginning * VOCAB + window[i];
            order.emplace_back(beginning, int(order.size()));
        }
        std::sort(order.begin(), order.end());
        for (const auto& [beginning, i] : order) windows.push_back(drawn[i]);
        weights.assign(data.batch, 1);
    }
};

// ---- one model

constexpr int PARTS = 4;  // of a batch, at most: sums of their own, so that threads can share it

struct Space {  // of a thread
    Tile<CUT, POS> tile;
    std::vector<Beginnings> beginnings;
    int begun;                // tiles of beginnings in use
    std::vector<int> origin;  // of each window, its beginning
    vec gradient[SIZE];

    // Puts each beginning of the windows from one to another into a place of its own.
    void begin(const Batch& batch, int from, int to) {
        begun = 0, origin.clear();
        for (int i = from, place = -1; CUT && i < to; i++) {
            const std::int32_t* window = batch.windows[i].data();
            if (i == from || !std::equal(window, window + CUT, batch.windows[i - 1].data())) {
                if (++place % WINDOWS == 0) {
                    if (++begun > int(beginnings.size())) beginnings.emplace_back();
                    beginnings[begun - 1].clear();
                }
            }
            beginnings[begun - 1].put(window, place % WINDOWS, batch.weights[i]);
            origin.push_back(place);
        }
        tile.beginnings = beginnings.data();
    }
};

struct Model {
    const real* parameters;
    Batch batch;
    int parts = 1;
    std::vector<real> folded = std::vector<real>(SIZE), losses = std::vector<real>(PARTS);
    std::vector<real> gradients, raw;
    std::atomic<int> next{PARTS}, left{0};
    std::int64_t step = 0;

    // Opens the parts of a batch to all threads.
    void open(bool with_gradient) {
        fold(parameters, folded.data());
        if (with_gradient) gradients.resize(PARTS * SIZE), raw.resize(PARAMETERS);
        const int tiles = (batch.count() + WINDOWS - 1) / WINDOWS;
        parts = std::clamp(tiles / 3, 1, PARTS);
        left = PARTS;
        next = 0;
    }

    void compute(int part, Space& space, bool with_gradient, real* logits) {
        if (part >= parts) return;
        const int tiles = (batch.count() + WINDOWS - 1) / WINDOWS;
        const int from = tiles * part / parts * WINDOWS;
        const int to = std::min(tiles * (part + 1) / parts * WINDOWS, batch.count());
        const real* w = folded.data();
        vec loss = all(0);
        if (with_gradient) std::memset(space.gradient, 0, sizeof space.gradient);
        space.begin(batch, from, to);
        for (int k = 0; k < space.begun; k++) space.beginnings[k].forward(w);
        for (int i = from; CUT && logits && i < to; i++) {
            const int place = space.origin[i - from];
            real* into = logits + std::int64_t(i) * POS * VOCAB;
            space.beginnings[place / WINDOWS].keep(place % WINDOWS, into);
        }
        for (int k = 0; k < space.begun; k++) loss += space.beginnings[k].loss();
        for (int first = from; first < to; first += WINDOWS) {
            const int there = std::min(WINDOWS, to - first);
            auto& tile = space.tile;
            tile.clear();
            for (int k = 0; k < there; k++) {
                tile.put(batch.windows[first + k].data(), k, batch.weights[first + k]);
                tile.origin[k] = CUT ? space.origin[first + k - from] : 0;
            }
            tile.forward(w);
            for (int k = 0; logits && k < there; k++) {
                tile.keep(k, logits + std::int64_t(first + k) * POS * VOCAB);
            }
            loss += tile.loss();
            if (with_gradient) tile.backward(w, space.gradient);
        }
        losses[part] = total(loss);
        if (!with_gradient) return;
        for (int k = 0; k < space.begun; k++) space.beginnings[k].backward(w, space.gradient);
        real* sums = gradients.data() + part * SIZE;
        for (int i = 0; i < SIZE; i++) sums[i] = total(space.gradient[i]);
    }

    real loss() const {
        real sum = 0;
        for (int part = 0; part < parts; part++) sum += losses[part];
        return sum;
    }

    // The gradient of the parameters, from those of the parts.
    void collect() {
        for (int part = 1; part < parts; part++) {
            for (int i = 0; i < SIZE; i++) gradients[i] += gradients[part * SIZE + i];
        }
        unfold(parameters, gradients.data(), raw.data());
    }
};

// ---- the optimizer

real norm(const real* x) {
    vec squares = all(0);
    for (int i = 0; i < PARAMETERS; i += LANES) {
        vec part = all(0);
        std::memcpy(&part, x + i, std::min(LANES, PARAMETERS - i) * sizeof(real));
        squares = fused(part, part, squares);
    }
    return std::sqrt(total(squares));
}

// AdamW (Loshchilov and Hutter 2019) on one model, its gradient clipped to a norm before.
void update(real* p, real* mean, real* square, const real* gradient, const Settings& settings,
            const real* rates) {
    const real bound = settings.clip / (norm(gradient) + real(1e-6));
    const real scale = bound > 1 ? 1 : bound;  // in this order a NaN stays one
    const real rest1 = 1 - settings.beta1, rest2 = 1 - settings.beta2;
    for (int i = 0; i < PARAMETERS; i++) {
        const real g = gradient[i] * scale, rate = rates[0] * settings.rate_of[i];
        mean[i] = mean[i] + (g - mean[i]) * rest1;
        square[i] = square[i] * settings.beta2 + g * g * rest2;
        const real size = std::sqrt(square[i]) * rates[2] + settings.epsilon;
        const real kept = p[i] - p[i] * (rate * settings.decay_of[i]);
        p[i] = kept - rate * rates[1] * mean[i] / size;
    }
}

// z = x y, of [rows][inner] and [inner][D_MODEL]
void multiply(const real* x, const real* y, real* z, std::int64_t rows, std::int64_t inner) {
    for (int i = 0; i < rows; i++) {
        for (int d = 0; d < D_MODEL; d++) {
            real sum = 0;
            for (int j = 0; j < inner; j++) sum += x[i * inner + j] * y[j * D_MODEL + d];
            z[i * D_MODEL + d] = sum;
        }
    }
}

void project(real* p, const Projection& map, real rate) {
    const std::int64_t n = map.count;
    std::vector<real> left(n * n), rows(n * D_MODEL), mixed(n * D_MODEL);
    for (int i = 0; i < n * n; i++) left[i] = map.left[i] + rate * map.left_by_rate[i];
    for (int i = 0; i < n; i++) {
        std::copy_n(p + W_E + map.rows[i] * D_MODEL, D_MODEL, rows.data() + i * D_MODEL);
    }
    multiply(left.data(), rows.data(), mixed.data(), n, n);
    multiply(mixed.data(), map.right, rows.data(), n, D_MODEL);
    for (int i = 0; i < n * D_MODEL; i++) {
        p[W_E + map.rows[i / D_MODEL] * D_MODEL + i % D_MODEL] = rows[i] + map.constant[i];
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

// Computes every open part of every model. Whoever finishes a model's last part calls finish on the
// model, which may open parts again. A thread stays with a model as long as that has parts left.
template <class Finish>
void work(std::vector<Model>& models, int threads, bool with_gradient, real* const* logits,
          Finish finish) {
    threads = std::min(threads, int(models.size()) * PARTS);
    std::atomic<int> open{int(models.size())};
    auto one = [&](int thread) {
        flush_denormals();
        auto space = std::make_unique<Space>();
        const int count = int(models.size());
        int home = thread * count / threads;
        while (open > 0) {
            int tried = 0;
            for (; tried < count; tried++, home = (home + 1) % count) {
                Model& model = models[home];
                if (model.next >= PARTS) continue;
                const int part = model.next++;
                if (part >= PARTS) continue;
                model.compute(part, *space, with_gradient, logits ? logits[home] : nullptr);
                if (--model.left == 0 && !finish(model)) open--;
                break;
            }
            if (tried == count) std::this_thread::yield();
        }
    };
    std::vector<std::thread> others;
    for (int i = 0; i < threads; i++) others.emplace_back(one, i);
    for (auto& other : others) other.join();
}

// Trains models [0, count) from one step up to another; parameters and Adam's averages are
// [count][PARAMETERS]. After each step, unless null, rows of W_E are projected, and a model whose
// parameters have a larger norm than its own in norms is scaled down to that.
extern "C" void train(int count, const Data* data, const Projection* projections,
                      const real* norms, const Settings* settings, std::int64_t from,
                      std::int64_t until, int threads, real* parameters, real* means, real* squares) {
    if (from >= until) return;
    std::vector<Model> models(count);
    for (int i = 0; i < count; i++) {
        models[i].parameters = parameters + std::int64_t(i) * PARAMETERS;
        models[i].step = from;
        models[i].batch.draw(data[i], from);
        models[i].open(true);
    }
    work(models, threads, true, nullptr, [&](Model& model) {
        const std::int64_t i = &model - models.data(), start = i * PARAMETERS;
        const real* rates = settings->rates + 3 * (model.step - from);
        model.collect();
        update(parameters + start, means + start, squares + start, model.raw.data(), *settings,
               rates);
        real* p = parameters + start;
        if (projections) project(p, projections[i], rates[0]);
        if (const real scale = norms ? norms[i] / norm(p) : 1; scale < 1) {
            for (int k = 0; k < PARAMETERS; k++) p[k] *= scale;
        }
        if (++model.step == until) return false;
        model.batch.draw(data[i], model.step);
        model.open(true);
        return true;
    });
}

// Each model's loss on windows [count][windows][POS + 1], weights [count][windows]; and, unless
// null, gradients [count][PARAMETERS] and logits [count][windows][POS][VOCAB].
extern "C" void evaluate(int count, const Window* windows, const real* weights,
                         std::int64_t batch, int threads, const real* parameters, real* losses,
                         real* gradients, real* logits) {
    std::vector<Model> models(count);
    std::vector<real*> kept(count);
    for (std::int64_t i = 0; i < count; i++) {
        models[i].parameters = parameters + i * PARAMETERS;
        std::int64_t size = batch;  // without windows that only fill up, which would move the parts
        while (!logits && size && weights[i * batch + size - 1] == 0) size--;
        models[i].batch.windows.assign(windows + i * batch, windows + i * batch + size);
        models[i].batch.weights.assign(weights + i * batch, weights + i * batch + size);
        if (logits) kept[i] = logits + i * batch * POS * VOCAB;
        models[i].open(gradients);
    }
    work(models, threads, gradients, logits ? kept.data() : nullptr, [&](Model& model) {
        const std::int64_t i = &model - models.data();
        losses[i] = model.loss();
        if (gradients) {
            model.collect();
            std::copy_n(model.raw.data(), PARAMETERS, gradients + i * PARAMETERS);
        }
        return false;
    });
}
