// Arithmetic on vectors of sixteen numbers, one window per lane, with the same bits everywhere.
//
// A sum has one order on every processor: a vec always has sixteen lanes, in one or more of the
// processor's registers. Multiply-adds are fused where fused() says so and nowhere else
// (-ffp-contract=off). Nothing is left to libm in single precision.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define UNROLLED _Pragma("GCC unroll 64")
#define INLINE inline __attribute__((always_inline))

// ---- the processor's registers: their bytes, their number, and the fused multiply-add

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int BYTES = 64, REGISTERS = 32;
INLINE __m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE __m512d fused(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
constexpr int BYTES = 32, REGISTERS = 16;
INLINE __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
INLINE __m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
#elif defined(__aarch64__)
#include <arm_neon.h>
constexpr int BYTES = 16, REGISTERS = 32;
INLINE float32x4_t fused(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
INLINE float64x2_t fused(float64x2_t a, float64x2_t b, float64x2_t c) { return vfmaq_f64(c, a, b); }
#else
#error "this processor has no fused multiply-add of vectors"
#endif

using real = REAL;
constexpr bool DOUBLE = sizeof(real) == 8;
constexpr int LANES = 16, PIECES = LANES * sizeof(real) / BYTES;

typedef real native __attribute__((vector_size(BYTES)));
typedef std::conditional_t<DOUBLE, std::int64_t, std::int32_t> lane_int;
typedef lane_int native_int __attribute__((vector_size(BYTES)));

// ---- a vec, and arithmetic by lanes

struct vec {
    native piece[PIECES];

    vec() = default;
    INLINE vec(real x) { UNROLLED for (int k = 0; k < PIECES; k++) piece[k] = x - native{}; }
    INLINE vec(const vec& x) { *this = x; }
    INLINE vec& operator=(const vec& x) {  // a copy of the whole may go through memory
        UNROLLED for (int k = 0; k < PIECES; k++) piece[k] = x.piece[k];
        return *this;
    }
};

// Defines a function of vecs by what it does to each of their pieces.
#define BY_PIECES(SIGNATURE, EXPRESSION)                                          \
    INLINE vec SIGNATURE {                                                        \
        vec result;                                                               \
        UNROLLED for (int k = 0; k < PIECES; k++) result.piece[k] = (EXPRESSION); \
        return result;                                                            \
    }

BY_PIECES(operator+(vec a, vec b), a.piece[k] + b.piece[k])
BY_PIECES(operator-(vec a, vec b), a.piece[k] - b.piece[k])
BY_PIECES(operator*(vec a, vec b), a.piece[k] * b.piece[k])
BY_PIECES(operator/(vec a, vec b), a.piece[k] / b.piece[k])
BY_PIECES(fused(vec a, vec b, vec c), fused(a.piece[k], b.piece[k], c.piece[k]))
BY_PIECES(larger(vec a, vec b), a.piece[k] > b.piece[k] ? a.piece[k] : b.piece[k])
BY_PIECES(where_positive(vec a, vec x, vec y), a.piece[k] > native{} ? x.piece[k] : y.piece[k])
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

// The sum of the lanes, halves added to halves.
INLINE real sum_of_lanes(vec x) {
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

// A polynomial by Horner's rule, from the highest coefficient down.
template <class... Rest>
INLINE vec polynomial(vec x, double highest, Rest... rest) {
    vec y = highest;
    ((y = fused(y, x, rest)), ...);
    return y;
}

// e^x for x at most 0; below -87 it is e^-87, 1.6e-38. Cephes' expf, to 2 units in the last place.
INLINE vec exponential(vec x) {
    if constexpr (DOUBLE) return by_lanes(x, [](real value) { return std::exp(value); });
    const real rounder = 12582912;  // 1.5 * 2^23
    x = larger(-87, x);             // in this order a NaN stays one
    const vec n = fused(x, 1.44269504088896341, rounder) - rounder;
    const vec r = fused(n, 2.12194440e-4, fused(n, -0.693359375, x));
    vec y = polynomial(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                       1.6666665459e-1, 5.0000001201e-1);
    y = fused(y, r * r, r) + 1;
    UNROLLED for (int k = 0; k < PIECES; k++) {
        y.piece[k] *= (native)((__builtin_convertvector(n.piece[k], native_int) + 127) << 23);
    }
    return y;
}

// log x for x at least 1. Cephes' logf, to 1 unit in the last place.
INLINE vec logarithm(vec x) {
    if constexpr (DOUBLE) return by_lanes(x, [](real value) { return std::log(value); });
    vec m, e;  // x = (1 + m) 2^e, where 1 + m is from the root of a half to the root of two
    UNROLLED for (int k = 0; k < PIECES; k++) {
        const auto bits = (native_int)x.piece[k] - 0x3f3504f3;
        e.piece[k] = __builtin_convertvector(bits >> 23, native);
        m.piece[k] = (native)((bits & 0x7fffff) + 0x3f3504f3) - 1;
    }
    const vec square = m * m;
    vec y = polynomial(m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
                       1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
                       3.3333331174e-1);
    y = fused(e, -2.12194440e-4, y * m * square);
    return fused(e, 0.693359375, fused(square, -0.5, y) + m) + (x - x);  // so that a NaN stays one
}

// x * normal cdf(x), and its derivative. In single precision the error function is Abramowitz and
// Stegun 7.1.26, to 1.5e-7, which torch uses as well.
INLINE void gelu(vec x, vec& value, vec& slope) {
    const vec bell = exponential(x * x * -0.5);
    vec cdf;
    if constexpr (DOUBLE) {
        cdf = by_lanes(x, [](real z) { return 0.5 * std::erfc(-z * M_SQRT1_2); });
    } else {
        const vec t = 1 / fused(larger(x, 0 - x), 0.3275911 * M_SQRT1_2, 1);
        const vec tail = polynomial(t, 1.061405429, -1.453152027, 1.421413741, -0.284496736,
                                    0.254829592) * t * bell * 0.5;
        cdf = where_positive(x, 1 - tail, tail);
    }
    value = x * cdf;
    slope = fused(x, bell * (0.5 * M_SQRT1_2 * M_2_SQRTPI), cdf);
}

// ---- products of matrices

// The steps from row to row and from column to column are known to the compiler.
template <class Number, int DOWN, int ACROSS = 1>
struct Matrix {
    Number* first;

    INLINE Number& operator()(int row, int column) const {
        return first[row * DOWN + column * ACROSS];
    }
    INLINE Matrix<Number, ACROSS, DOWN> transposed() const { return {first}; }
};

// Calls body(start, size) over N in blocks as even as can be, none above MOST, sizes known to the
// compiler, so that a block's sums stay in registers.
template <int N, int MOST, class Body>
INLINE void blocks(Body body) {
    constexpr int count = (N + MOST - 1) / MOST, size = N / count, more = N % count;
    constexpr std::integral_constant<int, size + (more > 0)> large;
    for (int i = 0; i < more; i++) body(i * large, large);
    for (int i = more; i < count; i++) body(more + i * size, std::integral_constant<int, size>{});
}

constexpr int SUMS = REGISTERS / PIECES;  // vecs that the registers hold
constexpr int MOST_ROWS = SUMS == 32 ? 9 : SUMS == 16 ? 4 : 3;
constexpr int SQUARE = SUMS == 32 ? 5 : SUMS == 16 ? 3 : 2;  // nearly, for fewest loads
enum Start { SET, CONTINUE, ADD };  // y = x w; a sum that starts at y; y += x w

// y = x w, of [ROWS][INNER] and [INNER][COLUMNS], in blocks of sums that stay in registers.
template <Start START, int ROWS, int COLUMNS, int INNER, int TALL = MOST_ROWS, class X, class W,
          class Y>
INLINE void product(X x, W w, Y y) {
    blocks<ROWS, TALL>([&](int row, auto rows) {
        constexpr int R = rows;
        blocks<COLUMNS, SUMS * 7 / 8 / R>([&](int column, auto columns) {
            constexpr int C = columns;
            vec sum[R][C];
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    sum[r][c] = START == CONTINUE ? y(row + r, column + c) : vec(0);
                }
            }
            for (int i = 0; i < INNER; i++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    const vec weight = w(i, column + c);
                    UNROLLED for (int r = 0; r < R; r++) {
                        sum[r][c] = fused(x(row + r, i), weight, sum[r][c]);
                    }
                }
            }
            UNROLLED for (int r = 0; r < R; r++) {
                UNROLLED for (int c = 0; c < C; c++) {
                    vec& to = y(row + r, column + c);
                    to = START == ADD ? to + sum[r][c] : sum[r][c];
                }
            }
        });
    });
}

// y = x w, or y += x w, of [N][IN] and [IN][OUT].
template <int N, int IN, int OUT, Start START = SET>
inline void linear(const vec* x, const real* w, vec* y) {
    product<START, N, OUT, IN>(Matrix<const vec, IN>{x}, Matrix<const real, OUT>{w},
                               Matrix<vec, OUT>{y});
}

// From the gradient of y that of x, unless null, and, added lane by lane, of w.
template <int N, int IN, int OUT>
inline void linear_backward(const vec* x, const real* w, const vec* dy, vec* dx, vec* dw) {
    const Matrix<const vec, OUT> gradient{dy};
    product<ADD, IN, OUT, N, SQUARE>(Matrix<const vec, 1, IN>{x}, gradient, Matrix<vec, OUT>{dw});
    if (dx) product<SET, N, IN, OUT>(gradient, Matrix<const real, 1, OUT>{w}, Matrix<vec, IN>{dx});
}
