// Arithmetic on vectors of sixteen numbers, a window a lane, with the same bits on every processor.
//
// A sum has one order, whatever the processor's own vectors are: a vec always has sixteen lanes, in
// one or more of the processor's vectors. Multiply-adds are fused where fused() says so and
// nowhere else (-ffp-contract=off). Nothing is left to libm in single precision.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

using real = REAL;
constexpr bool DOUBLE = sizeof(real) == 8;

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int BYTES = 16, REGISTERS = 32;
#else
#error "this processor has no fused multiply-add of vectors"
#endif
constexpr int LANES = 16;
constexpr int PIECES = LANES * sizeof(real) / BYTES;

typedef real native __attribute__((vector_size(BYTES)));
using whole = std::conditional_t<DOUBLE, std::int64_t, std::int32_t>;
typedef whole native_whole __attribute__((vector_size(BYTES)));

#define UNROLLED _Pragma("GCC unroll 64")
#define INLINE inline __attribute__((always_inline))

// ---- a vec, and arithmetic by lanes

struct vec {
    native piece[PIECES];
};

#if defined(__AVX512F__)
INLINE __m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE __m512d fused(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__AVX2__)
INLINE __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
INLINE __m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
#else
INLINE float32x4_t fused(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
INLINE float64x2_t fused(float64x2_t a, float64x2_t b, float64x2_t c) { return vfmaq_f64(c, a, b); }
#endif

// Defines a function of vecs by what it does to each of their pieces.
#define BY_PIECES(SIGNATURE, EXPRESSION)                                          \
    INLINE vec SIGNATURE {                                                        \
        vec result;                                                               \
        UNROLLED for (int k = 0; k < PIECES; k++) result.piece[k] = (EXPRESSION); \
        return result;                                                            \
    }

INLINE native spread(real x) { return x - native{}; }
BY_PIECES(all(real x), spread(x))
BY_PIECES(operator+(vec a, vec b), a.piece[k] + b.piece[k])
BY_PIECES(operator-(vec a, vec b), a.piece[k] - b.piece[k])
BY_PIECES(operator*(vec a, vec b), a.piece[k] * b.piece[k])
BY_PIECES(operator/(vec a, vec b), a.piece[k] / b.piece[k])
BY_PIECES(fused(vec a, vec b, vec c), fused(a.piece[k], b.piece[k], c.piece[k]))
BY_PIECES(larger(vec a, vec b), a.piece[k] > b.piece[k] ? a.piece[k] : b.piece[k])
BY_PIECES(where_positive(vec a, vec x, vec y), a.piece[k] > native{} ? x.piece[k] : y.piece[k])
INLINE vec operator+(vec a, real b) { return a + all(b); }
INLINE vec operator-(vec a, real b) { return a - all(b); }
INLINE vec operator*(vec a, real b) { return a * all(b); }
INLINE vec fused(vec a, vec b, real c) { return fused(a, b, all(c)); }
INLINE vec fused(vec a, real b, vec c) { return fused(a, all(b), c); }
INLINE vec fused(vec a, real b, real c) { return fused(a, all(b), all(c)); }
INLINE vec& operator+=(vec& a, vec b) { return a = a + b; }
INLINE vec& operator*=(vec& a, vec b) { return a = a * b; }

// y[lane] = f(x[lane])
template <class Function>
INLINE vec by_lanes(vec x, Function f) {
    real lane[LANES];
    std::memcpy(lane, &x, sizeof x);
    for (real& value : lane) value = f(value);
    std::memcpy(&x, lane, sizeof x);
    return x;
}

INLINE vec root(vec x) {
    return by_lanes(x, [](real value) { return std::sqrt(value); });
}

// The sum of the lanes, halves added to halves.
INLINE real total(vec x) {
    typedef real eight __attribute__((vector_size(8 * sizeof(real))));
    typedef real four __attribute__((vector_size(4 * sizeof(real))));
    eight a[2];
    std::memcpy(a, &x, sizeof a);
    a[0] += a[1];
    four b[2];
    std::memcpy(b, a, sizeof b);
    b[0] += b[1];
    return (b[0][0] + b[0][2]) + (b[0][1] + b[0][3]);
}

// ---- exp, log and GELU; in double precision the library's own, for tests

// e^x for x at most 0; below -87 it is e^-87, 1.6e-38. Cephes' expf, to 2 units in the last place.
INLINE vec exponential(vec x) {
    if constexpr (DOUBLE) return by_lanes(x, [](real value) { return std::exp(value); });
    const real rounder = 12582912;  // 1.5 * 2^23
    x = larger(all(-87), x);        // in this order a NaN stays one
    const vec n = fused(x, real(1.44269504088896341), rounder) - rounder;
    const vec r = fused(n, real(2.12194440e-4), fused(n, real(-0.693359375), x));
    vec y = fused(r, real(1.9875691500e-4), real(1.3981999507e-3));
    y = fused(y, r, real(8.3334519073e-3));
    y = fused(y, r, real(4.1665795894e-2));
    y = fused(y, r, real(1.6666665459e-1));
    y = fused(y, r, real(5.0000001201e-1));
    y = fused(y, r * r, r) + real(1);
    UNROLLED for (int k = 0; k < PIECES; k++) {
        const auto power = __builtin_convertvector(n.piece[k], native_whole) + 127;
        y.piece[k] *= (native)(power << 23);
    }
    return y;
}

// log x for x at least 1. Cephes' logf, to 1 unit in the last place.
INLINE vec logarithm(vec x) {
    if constexpr (DOUBLE) return by_lanes(x, [](real value) { return std::log(value); });
    vec m, e;  // x = (1 + m) 2^e, where 1 + m is from the root of a half to the root of two
    UNROLLED for (int k = 0; k < PIECES; k++) {
        const auto bits = (native_whole)x.piece[k] - 0x3f3504f3;
        e.piece[k] = __builtin_convertvector(bits >> 23, native);
        m.piece[k] = (native)((bits & 0x7fffff) + 0x3f3504f3) - 1;
    }
    const vec square = m * m;
    vec y = fused(m, real(7.0376836292e-2), real(-1.1514610310e-1));
    y = fused(y, m, real(1.1676998740e-1));
    y = fused(y, m, real(-1.2420140846e-1));
    y = fused(y, m, real(1.4249322787e-1));
    y = fused(y, m, real(-1.6668057665e-1));
    y = fused(y, m, real(2.0000714765e-1));
    y = fused(y, m, real(-2.4999993993e-1));
    y = fused(y, m, real(3.3333331174e-1));
    y = fused(e, real(-2.12194440e-4), y * m * square);
    y = fused(square, real(-0.5), y) + m;
    return fused(e, real(0.693359375), y) + (x - x);  // so that a NaN stays one
}

// x * normal cdf(x), and its derivative. In single precision the error function is Abramowitz and
// Stegun 7.1.26, to 1.5e-7, which torch uses as well.
INLINE void gelu(vec x, vec& value, vec& slope) {
    const vec bell = exponential(x * x * real(-0.5));
    vec cdf;
    if constexpr (DOUBLE) {
        cdf = by_lanes(x, [](real z) { return 0.5 * std::erfc(-z * M_SQRT1_2); });
    } else {
        const vec size = larger(x, all(0) - x);
        const vec t = all(1) / fused(size, real(0.3275911 * M_SQRT1_2), real(1));
        vec y = fused(t, real(1.061405429), real(-1.453152027));
        y = fused(y, t, real(1.421413741));
        y = fused(y, t, real(-0.284496736));
        y = fused(y, t, real(0.254829592));
        const vec tail = y * t * bell * real(0.5);
        cdf = where_positive(x, all(1) - tail, tail);
    }
    value = x * cdf;
    slope = fused(x, bell * real(0.5 * M_SQRT1_2 * M_2_SQRTPI), cdf);
}

// ---- products; arrays of vecs are [N][width], row after row

// Calls body(start, size) over N in blocks as even as can be, none above MOST, sizes known to the
// compiler, so that a block's sums stay in registers.
template <int N, int MOST, class Body>
INLINE void blocks(Body body) {
    constexpr int count = (N + MOST - 1) / MOST, size = (N + count - 1) / count;
    constexpr int large = N - count * (size - 1);
    for (int i = 0; i < large; i++) body(i * size, std::integral_constant<int, size>{});
    if constexpr (large < count) {
        for (int i = large; i < count; i++) {
            body(large + i * (size - 1), std::integral_constant<int, size - 1>{});
        }
    }
}

constexpr int SUMS = REGISTERS / PIECES;  // vecs that the registers hold
constexpr int ROWS = SUMS == 32 ? 9 : SUMS == 16 ? 4 : 3;
constexpr int SQUARE = SUMS == 32 ? 5 : SUMS == 16 ? 3 : 2;

enum Start { SET, ADD };

// y = x w + bias, or y += x w + bias, for each of N rows; w is [IN][OUT], or its transpose.
template <int N, int IN, int OUT, Start START = SET, bool TRANSPOSED = false>
inline void product(const vec* x, const real* w, vec* y, const real* bias = nullptr) {
    blocks<N, ROWS>([&](int row, auto rows) {
        constexpr int R = decltype(rows)::value;
        blocks<OUT, SUMS * 7 / 8 / R>([&](int column, auto columns) {
            constexpr int C = decltype(columns)::value;
            vec sum[R][C];
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    sum[r][c] = START == ADD ? y[(row + r) * OUT + column + c] : all(0);
                    if (BIAS && bias) sum[r][c] += all(bias[column + c]);
                }
            }
            for (int i = 0; i < IN; i++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    const int out = column + c;
                    const vec weight = all(TRANSPOSED ? w[out * IN + i] : w[i * OUT + out]);
                    UNROLLED for (int r = 0; r < R; r++) {
                        sum[r][c] = fused(x[(row + r) * IN + i], weight, sum[r][c]);
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
template <int N, int IN, int OUT>
inline void weight_gradient(const vec* x, const vec* dy, vec* dw, vec* dbias = nullptr) {
    blocks<IN, SQUARE>([&](int row, auto rows) {
        blocks<OUT, SQUARE>([&](int column, auto columns) {
            constexpr int R = decltype(rows)::value, C = decltype(columns)::value;
            vec sum[R][C] = {};
            for (int n = 0; n < N; n++) {
                UNROLLED for (int r = 0; r < R; r++) {
                    const vec left = x[n * IN + row + r];
                    UNROLLED for (int c = 0; c < C; c++) {
                        sum[r][c] = fused(left, dy[n * OUT + column + c], sum[r][c]);
                    }
                }
            }
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) dw[(row + r) * OUT + column + c] += sum[r][c];
            }
        });
    });
    if (BIAS && dbias) {
        for (int n = 0; n < N; n++) {
            for (int c = 0; c < OUT; c++) dbias[c] += dy[n * OUT + c];
        }
    }
}
