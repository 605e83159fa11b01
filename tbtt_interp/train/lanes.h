// Arithmetic on vectors that hold a number of LANES windows, a window a lane, for kernel.cpp.
//
// Arrays of vectors are [POS][width], row after row.

#include <cmath>
#include <cstdint>
#include <type_traits>

using real = REAL;

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int BYTES = 32, REGISTERS = 16;
#else
constexpr int BYTES = 16, REGISTERS = 32;
#endif
constexpr int LANES = BYTES / sizeof(real);
constexpr int D_HEAD = D_MODEL / HEADS;

typedef real vec __attribute__((vector_size(BYTES)));
using whole = std::conditional_t<sizeof(real) == 8, std::int64_t, std::int32_t>;
typedef whole ivec __attribute__((vector_size(BYTES)));

// ---- arithmetic by lanes

inline vec larger(vec a, vec b) { return a > b ? a : b; }

inline vec root(vec x) {
    for (int lane = 0; lane < LANES; lane++) x[lane] = std::sqrt(x[lane]);
    return x;
}

inline real total(vec x) {
    real sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

// e^x for x at most 0. Cephes' expf, to 2 units in the last place; in double the library's own.
inline vec exponential(vec x) {
    if constexpr (sizeof(real) == 8) {
        for (int lane = 0; lane < LANES; lane++) x[lane] = std::exp(x[lane]);
        return x;
    }
    const real rounder = 12582912;  // 1.5 * 2^23
    x = larger(vec{} - real(87), x);  // in this order a NaN stays one
    vec n = (x * real(1.44269504088896341) + rounder) - rounder;
    vec r = x - n * real(0.693359375) + n * real(2.12194440e-4);
    vec y = r * real(1.9875691500e-4) + real(1.3981999507e-3);
    y = y * r + real(8.3334519073e-3);
    y = y * r + real(4.1665795894e-2);
    y = y * r + real(1.6666665459e-1);
    y = y * r + real(5.0000001201e-1);
    y = y * r * r + r + real(1);
    return y * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

// x * normal cdf(x), and its derivative. In single precision the error function is Abramowitz and
// Stegun 7.1.26, to 1.5e-7, which torch uses as well.
inline void gelu(vec x, vec& value, vec& slope) {
    vec bell = exponential(x * x * real(-0.5));
    vec cdf;
    if constexpr (sizeof(real) == 8) {
        for (int lane = 0; lane < LANES; lane++) {
            cdf[lane] = real(0.5) * std::erfc(-x[lane] * real(M_SQRT1_2));
        }
    } else {
        vec t = real(1) / (real(1) + larger(x, -x) * real(0.3275911 * M_SQRT1_2));
        vec y = t * real(1.061405429) - real(1.453152027);
        y = y * t + real(1.421413741);
        y = y * t - real(0.284496736);
        y = y * t + real(0.254829592);
        vec tail = y * t * bell * real(0.5);
        cdf = x > vec{} ? real(1) - tail : tail;
    }
    value = x * cdf;
    slope = cdf + x * bell * real(0.5 * M_SQRT1_2 * M_2_SQRTPI);
}

// ---- products

// Calls body(start, size) over N in blocks as even as can be, none above MOST, sizes known to the
// compiler, so that a block's sums stay in registers.
template <int N, int MOST, class Body>
inline void blocks(Body body) {
    constexpr int count = (N + MOST - 1) / MOST, size = (N + count - 1) / count;
    constexpr int large = N - count * (size - 1);
    for (int i = 0; i < large; i++) body(i * size, std::integral_constant<int, size>{});
    if constexpr (large < count) {
        for (int i = large; i < count; i++) {
            body(large + i * (size - 1), std::integral_constant<int, size - 1>{});
        }
    }
}

#define UNROLLED _Pragma("GCC unroll 32")
constexpr int ROWS = REGISTERS == 32 ? 9 : 4, COLUMNS = REGISTERS == 32 ? 3 : 2;

enum Start { SET, ADD };

// y = x w + bias, or y += x w + bias, for every position; w is [IN][OUT], or its transpose.
template <int IN, int OUT, Start START = SET, bool TRANSPOSED = false>
inline void product(const vec* x, const real* w, vec* y, const real* bias = nullptr) {
    blocks<POS, ROWS>([&](int row, auto rows) {
        blocks<OUT, COLUMNS>([&](int column, auto columns) {
            constexpr int R = decltype(rows)::value, C = decltype(columns)::value;
            vec sum[R][C];
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    sum[r][c] = START == ADD ? y[(row + r) * OUT + column + c] : vec{};
                    if (BIAS && bias) sum[r][c] += bias[column + c];
                }
            }
            for (int i = 0; i < IN; i++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    const int out = column + c;
                    const real weight = TRANSPOSED ? w[out * IN + i] : w[i * OUT + out];
                    UNROLLED for (int r = 0; r < R; r++) {
                        sum[r][c] += x[(row + r) * IN + i] * weight;
                    }
                }
            }
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) y[(row + r) * OUT + column + c] = sum[r][c];
            }
        });
    });
}

// The gradient of that product's weights and bias, added to what is there, lane by lane.
template <int IN, int OUT>
inline void weight_gradient(const vec* x, const vec* dy, vec* dw, vec* dbias = nullptr) {
    blocks<IN, REGISTERS == 32 ? 5 : 3>([&](int row, auto rows) {
        blocks<OUT, REGISTERS == 32 ? 4 : 3>([&](int column, auto columns) {
            constexpr int R = decltype(rows)::value, C = decltype(columns)::value;
            vec sum[R][C] = {};
            for (int pos = 0; pos < POS; pos++) {
                UNROLLED for (int r = 0; r < R; r++) {
                    UNROLLED for (int c = 0; c < C; c++) {
                        sum[r][c] += x[pos * IN + row + r] * dy[pos * OUT + column + c];
                    }
                }
            }
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) dw[(row + r) * OUT + column + c] += sum[r][c];
            }
        });
    });
    if (BIAS && dbias) {
        for (int pos = 0; pos < POS; pos++) {
            for (int c = 0; c < OUT; c++) dbias[c] += dy[pos * OUT + c];
        }
    }
}

// ---- LayerNorm and attention

inline void normalise(const vec* x, vec* hat, vec* inverse) {
    for (int pos = 0; pos < POS; pos++, x += D_MODEL, hat += D_MODEL) {
        vec mean = {}, variance = {};
        for (int d = 0; d < D_MODEL; d++) mean += x[d];
        mean *= real(1.0 / D_MODEL);
        for (int d = 0; d < D_MODEL; d++) hat[d] = x[d] - mean, variance += hat[d] * hat[d];
        inverse[pos] = real(1) / root(variance * real(1.0 / D_MODEL) + real(EPSILON));
        for (int d = 0; d < D_MODEL; d++) hat[d] *= inverse[pos];
    }
}

// Adds to dx the gradient that dhat is of a normalised vector.
inline void normalise_backward(const vec* hat, const vec* inverse, const vec* dhat, vec* dx) {
    for (int pos = 0; pos < POS; pos++, hat += D_MODEL, dhat += D_MODEL, dx += D_MODEL) {
        vec mean = {}, along = {};
        for (int d = 0; d < D_MODEL; d++) mean += dhat[d], along += dhat[d] * hat[d];
        mean *= real(1.0 / D_MODEL), along *= real(1.0 / D_MODEL);
        for (int d = 0; d < D_MODEL; d++) dx[d] += inverse[pos] * (dhat[d] - mean - hat[d] * along);
    }
}

// y[query][key] = a[query] . b[key], of one head; keys after the query are garbage.
template <int A, int B>
inline void overlap(const vec* a, const vec* b, vec (*y)[POS]) {
    for (int query = 0; query < POS; query++) {
        blocks<POS, 24>([&](int key, auto keys) {
            if (key > query) return;
            constexpr int K = decltype(keys)::value;
            vec sum[K] = {};
            for (int e = 0; e < D_HEAD; e++) {
                UNROLLED for (int k = 0; k < K; k++) {
                    sum[k] += a[query * A + e] * b[(key + k) * B + e];
                }
            }
            UNROLLED for (int k = 0; k < K; k++) y[query][key + k] = sum[k];
        });
    }
}

// y[to] = the sum over pattern[to][from] x[from], from at most to; or, transposed, at least.
template <int X, int Y, bool TRANSPOSED = false>
inline void mix(const vec (*pattern)[POS], const vec* x, vec* y) {
    for (int to = 0; to < POS; to++) {
        blocks<D_HEAD, 16>([&](int e, auto width) {
            constexpr int W = decltype(width)::value;
            vec sum[W] = {};
            for (int from = TRANSPOSED ? to : 0; from < (TRANSPOSED ? POS : to + 1); from++) {
                const vec weight = TRANSPOSED ? pattern[from][to] : pattern[to][from];
                UNROLLED for (int i = 0; i < W; i++) sum[i] += weight * x[from * X + e + i];
            }
            UNROLLED for (int i = 0; i < W; i++) y[to * Y + e + i] = sum[i];
        });
    }
}
