/** Matrix products, the exact GELU, and softmax, on flat arrays of float64. */

/** @typedef {Float64Array | Float32Array} Numbers */

const STEP = 1 / 128;
const LAST = 6; // 1 - erf(6) is 2e-17
const TABLE = erfTable();
const SLOPES = TABLE.map((_, k) => (2 / Math.sqrt(Math.PI)) * STEP * Math.exp(-((k * STEP) ** 2)));

/** erf at multiples of STEP by its series without cancellation (Abramowitz and Stegun 7.1.6). */
function erfTable() {
  const table = new Float64Array(LAST / STEP + 2);
  for (let k = 0; k < table.length; k++) {
    const x = k * STEP;
    let term = x;
    let sum = x;
    for (let n = 1; n < 200 && term > 1e-17 * sum; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    table[k] = (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  return table;
}

/**
 * The error function, to 1e-10: cubic Hermite interpolation with the exact derivative.
 * @param {number} x
 */
export function erf(x) {
  const size = Math.abs(x);
  if (!(size < LAST)) return Number.isNaN(x) ? x : Math.sign(x);
  const k = Math.floor(size / STEP);
  const t = size / STEP - k;
  const a = TABLE[k];
  const b = TABLE[k + 1];
  const da = SLOPES[k];
  const db = SLOPES[k + 1];
  const u = 1 - t;
  const value = a * u * u * (1 + 2 * t) + b * t * t * (3 - 2 * t) + t * u * (da * u - db * t);
  return x < 0 ? -value : value;
}

/** The exact GELU: x times the standard normal distribution function. @param {number} x */
export function gelu(x) {
  return 0.5 * x * (1 + erf(x * Math.SQRT1_2));
}

/** The derivative of the exact GELU. @param {number} x */
export function geluSlope(x) {
  const density = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
  return 0.5 * (1 + erf(x * Math.SQRT1_2)) + x * density;
}

/**
 * A times B transposed: out[n, m] = sum over k of a[n, k] b[m, k], plus bias[m].
 * Blocks of two rows by four columns keep the sums in registers.
 * @param {Numbers} a of rows x inner
 * @param {Numbers} b of columns x inner
 * @param {number} rows
 * @param {number} columns
 * @param {number} inner
 * @param {Float64Array} [out]
 * @returns {Float64Array} of rows x columns
 */
export function product(a, b, rows, columns, inner, out = new Float64Array(rows * columns)) {
  let n = 0;
  for (; n + 2 <= rows; n += 2) {
    const p = n * inner;
    const q = p + inner;
    let m = 0;
    for (; m + 4 <= columns; m += 4) {
      const w0 = m * inner;
      const w1 = w0 + inner;
      const w2 = w1 + inner;
      const w3 = w2 + inner;
      let s0 = 0,
        s1 = 0,
        s2 = 0,
        s3 = 0,
        t0 = 0,
        t1 = 0,
        t2 = 0,
        t3 = 0;
      for (let k = 0; k < inner; k++) {
        const x = a[p + k];
        const y = a[q + k];
        const c0 = b[w0 + k],
          c1 = b[w1 + k],
          c2 = b[w2 + k],
          c3 = b[w3 + k];
        s0 += x * c0;
        s1 += x * c1;
        s2 += x * c2;
        s3 += x * c3;
        t0 += y * c0;
        t1 += y * c1;
        t2 += y * c2;
        t3 += y * c3;
      }
      const o = n * columns + m;
      out[o] = s0;
      out[o + 1] = s1;
      out[o + 2] = s2;
      out[o + 3] = s3;
      const r = o + columns;
      out[r] = t0;
      out[r + 1] = t1;
      out[r + 2] = t2;
      out[r + 3] = t3;
    }
    for (; m < columns; m++) {
      out[n * columns + m] = dot(a, p, b, m * inner, inner);
      out[(n + 1) * columns + m] = dot(a, q, b, m * inner, inner);
    }
  }
  for (; n < rows; n++) {
    for (let m = 0; m < columns; m++) {
      out[n * columns + m] = dot(a, n * inner, b, m * inner, inner);
    }
  }
  return out;
}

/**
 * The sum of products of two stretches of numbers.
 * @param {Numbers} a @param {number} i @param {Numbers} b @param {number} j @param {number} length
 */
export function dot(a, i, b, j, length) {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += a[i + k] * b[j + k];
  return sum;
}

/**
 * A matrix transposed.
 * @param {Numbers} a of rows x columns
 * @param {number} rows @param {number} columns
 * @param {Float64Array} [out]
 */
export function transpose(a, rows, columns, out = new Float64Array(rows * columns)) {
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j];
  }
  return out;
}

/**
 * Softmax of a stretch of numbers, in place; -Infinity becomes 0.
 * @param {Float64Array} a @param {number} start @param {number} length
 */
export function softmax(a, start, length) {
  let top = -Infinity;
  for (let k = start; k < start + length; k++) if (a[k] > top) top = a[k];
  let sum = 0;
  for (let k = start; k < start + length; k++) {
    a[k] = Math.exp(a[k] - top);
    sum += a[k];
  }
  for (let k = start; k < start + length; k++) a[k] /= sum;
}

/** The index of the greatest number of a stretch, counted from its start. @param {Numbers} a @param {number} start @param {number} length */
export function argmax(a, start, length) {
  let best = 0;
  for (let k = 1; k < length; k++) if (a[start + k] > a[start + best]) best = k;
  return best;
}
