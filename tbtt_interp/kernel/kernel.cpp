// Trains many small transformers, a number of steps in one call.
//
// A model's step is: draw its windows, fold LayerNorm into the matrices, loss and gradient of each
// part of the windows, unfold, clip, AdamW. Each of these has one order of operations, so that a
// model's bits depend on its recipe and seed alone: not on the threads, on the models beside it, on
// the processor or on the compiler.
//
// Set on the compiler's command line: REAL, POS, VOCAB, D_MODEL, HEADS, D_MLP, LAYERS, TIED
// (whether the readout is the embedding, transposed), and LayerNorm's EPSILON.

#include <array>
#include <atomic>
#include <future>
#include <memory>
#include <numeric>
#include <vector>

#include "tile.h"

// ---- folding

// Calls body for each row of each matrix that reads a LayerNorm, with the place of the channel's
// scale, of the row's weights (the first, and the step to the next), how many they are, where they
// stand once folded, side by side, and attention's scale.
template <class Body>
void each_row(Body body) {
    const auto matrix = [&](int norm, int weight, int down, int across, int columns, int folded,
                            int width, real scale = 1) {
        for (int d = 0; d < D_MODEL; d++) {
            body(norm + d, weight + d * down, across, columns, folded + d * width, scale);
        }
    };
    const real q_scale = real(1 / std::sqrt(double(D_HEAD)));
    for (int block = BLOCKS; block < LN_FINAL; block += BLOCK) {
        for (int i = 0; i < 3 * HEADS; i++) {  // role by role, head by head
            matrix(block, block + QKV + i * D_MODEL * D_HEAD, D_HEAD, 1, D_HEAD,
                   block + QKV + i * D_HEAD, D_QKV, i < HEADS ? q_scale : 1);
        }
        matrix(block + LN2, block + MLP_IN, D_MLP, 1, D_MLP, block + MLP_IN, D_MLP);
    }
    matrix(LN_FINAL, TIED ? EMBED : UNEMBED, TIED ? 1 : VOCAB, TIED ? D_MODEL : 1, VOCAB, UNEMBED,
           VOCAB);
}

void fold(const real* p, real* f) {
    std::copy_n(p, PARAMETERS, f);
    each_row([&](int norm, int weight, int across, int columns, int folded, real scale) {
        for (int c = 0; c < columns; c++) f[folded + c] = p[norm] * p[weight + c * across] * scale;
    });
}

// From the gradient of the folded parameters to that of the parameters.
void unfold(const real* p, const real* df, real* dp) {
    std::copy_n(df, SIZE, dp);
    each_row([&](int norm, int weight, int across, int columns, int folded, real scale) {
        real gain = 0;
        for (int c = 0, at = weight; c < columns; c++, at += across) {
            const real slope = df[folded + c] * scale;
            gain += p[at] * slope;
            dp[at] = (at < BLOCKS ? dp[at] : 0) + p[norm] * slope;  // an embedding is read, too
        }
        dp[norm] += gain;
    });
}

// ---- draws: Philox4x64-10 (Salmon et al. 2011), the numbers of numpy.random.Philox

struct Draws {
    std::uint64_t seed, step, drawn = 0;
    std::array<std::uint64_t, 4> block{};

    // A number below n; the low bits of a word are left out.
    int below(std::uint64_t n) {
        using word = std::uint64_t;
        if (drawn % 4 == 0) block = {drawn / 4 + 1, step, 0, 0};
        for (word round = 0; drawn % 4 == 0 && round < 10; round++) {
            const auto a = (unsigned __int128)(0xD2E7470EE14C6C93) * block[0];
            const auto b = (unsigned __int128)(0xCA5A826395121157) * block[2];
            block = {word(b >> 64) ^ block[1] ^ (seed + round * 0x9E3779B97F4A7C15), word(b),
                     word(a >> 64) ^ block[3] ^ (round * 0xBB67AE8584CAA73B), word(a)};
        }
        return int((block[drawn++ % 4] >> 32) * n >> 32);
    }
};

// ---- what a model is trained on, and how; the same structures as in __init__.py

struct Data {
    const std::int32_t* rows;     // [count][width]: windows, or lines; negative is no character
    const std::int32_t* lengths;  // of lines, from which windows are cut; null if rows are windows
    const real* weights;          // of each window's summed loss; null to draw windows instead
    std::int64_t count, width, batch;
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

inline bool is_token(std::int32_t character) { return character >= 0; }

struct Batch {
    std::vector<Window> windows;
    std::vector<real> weights;  // of each window's summed loss

    void draw(const Data& data, std::uint64_t step) {
        windows.clear();
        weights.clear();
        Draws draws{data.seed, step};
        if (data.lengths) return cut(data, draws);
        std::vector<real> times(data.count);
        for (int i = 0; i < data.batch; i++) times[draws.below(data.count)]++;
        if (data.weights) times.assign(data.weights, data.weights + data.count);
        std::int64_t characters = 0;
        for (int row = 0; row < data.count; row++) {
            if (!times[row]) continue;
            Window& window = windows.emplace_back();
            std::copy_n(data.rows + row * data.width, POS + 1, window.begin());
            weights.push_back(times[row]);
            characters += std::int64_t(times[row]) *
                          std::count_if(&window[1], &window[POS] + 1, is_token);
        }
        for (real& weight : weights) weight = data.weights ? weight : weight / real(characters);
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
            for (int i = 0; i <= lines; i++, offset = 0) {
                if (i) line = draws.below(data.count);
                while (filled <= POS && offset < data.lengths[line]) {
                    window[filled++] = data.rows[line * data.width + offset++];
                }
            }
            std::int64_t prefix = 0;
            for (int i = 0; i < PREFIX; i++) prefix = prefix * VOCAB + window[i];
            order.emplace_back(prefix, int(order.size()));
        }
        std::sort(order.begin(), order.end());
        for (const auto& [prefix, i] : order) windows.push_back(drawn[i]);
        weights.assign(data.batch, 1 / real(data.batch * POS));
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

    // Puts each prefix of the windows [from, to) into a slot of its own.
    void put_prefixes(const Batch& batch, int from, int to) {
        prefixes.clear();
        prefix_of.clear();
        for (int i = from, count = 0; PREFIX && i < to; i++) {
            const Window &window = batch.windows[i], &before = batch.windows[std::max(i - 1, from)];
            const bool is_new = i == from || !std::equal(&window[0], &window[PREFIX], &before[0]);
            if (is_new && count++ % WINDOWS == 0) prefixes.emplace_back().clear();
            prefix_of.push_back(count - 1);
            prefixes.back().put(window.data(), (count - 1) % WINDOWS, batch.weights[i]);
        }
        tile.prefixes = short_tile.prefixes = prefixes.data();
    }
};

struct Model {
    const real* parameters;
    real* logits = nullptr;  // [window][POS][VOCAB], unless null
    Batch batch;
    int parts = 0;  // of the batch, once there is one
    std::vector<real> folded = std::vector<real>(SIZE), losses = std::vector<real>(PARTS);
    std::vector<real> unfolded = std::vector<real>(SIZE), gradients;
    std::atomic<int> next{PARTS}, left{0};
    std::int64_t steps = 0;

    // Opens the parts of a batch to all threads.
    void open(const real* present, bool with_gradient) {
        parameters = present;
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
        const bool with_gradient = !gradients.empty();
        if (with_gradient) std::memset(space.gradient, 0, sizeof space.gradient);
        space.put_prefixes(batch, from, to);
        for (Prefixes& prefixes : space.prefixes) prefixes.forward(w);
        for (Prefixes& prefixes : space.prefixes) loss += logits ? 0 : prefixes.loss();
        const auto compute_tile = [&](auto& tile, int first, int count) {
            tile.clear();
            tile.filled = count;
            for (int k = 0; k < count; k++) {
                tile.put(batch.windows[first + k].data(), k, batch.weights[first + k]);
                tile.prefix_of[k] = PREFIX ? space.prefix_of[first + k - from] : 0;
            }
            tile.forward(w);
            if (logits) tile.copy_logits(logits + first * POS * VOCAB);
            loss += logits ? 0 : tile.loss();
            if (with_gradient) tile.backward(w, space.gradient);
        };
        for (int first = from; first < to; first += WINDOWS) {
            const int count = std::min(WINDOWS, to - first);
            const Window* windows = &batch.windows[first];
            const bool are_short = !logits && std::all_of(windows, windows + count, [](auto& of) {
                return std::none_of(&of[SHORT] + 1, &of[POS] + 1, is_token);
            });  // all that they predict is at the positions of a short tile
            are_short ? compute_tile(space.short_tile, first, count)
                      : compute_tile(space.tile, first, count);
        }
        losses[part] = sum_of_lanes(loss);
        if (!with_gradient) return;
        for (Prefixes& prefixes : space.prefixes) prefixes.backward(w, space.gradient);
        for (int i = 0; i < SIZE; i++) gradients[part * SIZE + i] = sum_of_lanes(space.gradient[i]);
    }

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
        p[i] = p[i] - p[i] * (rate * settings.decay_of[i]) - rate * rates[1] * mean[i] / size;
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

// Computes models part by part. Before the first and after the last part of a model's batch it
// calls advance on the model, which opens the parts of another batch or returns false. A thread
// stays with a model as long as that has parts left. It treats numbers below the least normal one,
// 1e-38, as 0: some processors compute with them so slowly that a step takes ten times as long.
// Returns 0 if memory or threads were lacking.
template <class Advance>
int work(std::vector<Model>& models, int threads, Advance advance) try {
    const int count = int(models.size());
    std::atomic<int> open{0};
    for (Model& model : models) open += advance(model);
    const auto one = [&](int home) {
#if defined(__x86_64__)
        _mm_setcsr(_mm_getcsr() | 0x8040);
#else
        asm volatile("mrs x9, fpcr; orr x9, x9, #0x1000000; msr fpcr, x9" ::: "x9");
#endif
        try {
            const auto space = std::make_unique<Workspace>();
            for (int tried = 0; open > 0;) {
                Model& model = models[home % count];
                if (const int part = model.next < PARTS ? model.next++ : PARTS; part < PARTS) {
                    model.compute(part, *space);
                    if (--model.left == 0 && !advance(model)) open--;
                    tried = 0;
                } else {
                    home++;
                    if (++tried % count == 0) std::this_thread::yield();
                }
            }
        } catch (...) {
            open = 0;  // or the others would wait for its part
            throw;
        }
    };
    std::vector<std::future<void>> all;
    for (int i = 0, most = std::min(threads, count * PARTS); i < most; i++) {
        all.push_back(std::async(std::launch::async, one, i * count / most));
    }
    for (auto& thread : all) thread.get();
    return 1;
} catch (const std::exception&) {
    return 0;
}

// Trains models [0, count) from one step up to another; parameters and Adam's averages are
// [count][PARAMETERS]. After each step, unless null, rows of the embedding are projected, and a
// model whose parameters have a larger norm than its own in norms is scaled down to that.
//
// Without settings, a step only adds each model's loss to losses and, unless null, writes gradients
// [count][PARAMETERS]; or, unless null, it writes logits [count][window][POS][VOCAB] and nothing
// else. Returns 0 as work does.
extern "C" int run(int count, const Data* data, const Projection* projections, const real* norms,
                   const Settings* settings, std::int64_t from, std::int64_t until, int threads,
                   real* parameters, real* means, real* squares, real* losses, real* gradients,
                   real* logits) {
    std::vector<Model> models(count);
    return work(models, threads, [&](Model& model) {
        const std::int64_t i = &model - models.data(), start = i * PARAMETERS;
        real* p = parameters + start;
        if (model.parts && settings) {
            const real* rates = settings->rates + 3 * model.steps;
            update(p, means + start, squares + start, model.gradient(), *settings, rates);
            if (projections) project(p, projections[i], rates[0]);
            const real scale = norms ? norms[i] / norm(p) : 1;
            for (int k = 0; scale < 1 && k < PARAMETERS; k++) p[k] *= scale;
        } else if (model.parts) {
            for (int k = 0; losses && k < model.parts; k++) losses[i] += model.losses[k];
            if (gradients) std::copy_n(model.gradient(), PARAMETERS, gradients + start);
        }
        model.steps += model.parts > 0;
        if (from + model.steps >= until) return false;
        model.batch.draw(data[i], from + model.steps);
        if (logits) model.logits = logits + i * data[i].count * POS * VOCAB;
        model.open(p, settings || gradients);
        return true;
    });
}
