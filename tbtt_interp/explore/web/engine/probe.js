/** A linear probe: discriminant analysis of standardized activations, as scikit-learn has it. */

import { dot } from "./numbers.js";

const SHRINKAGE = 0.1; // of the covariance within classes, towards a multiple of the identity

/**
 * How likely each class is, read from other rows by a probe that is fitted on some.
 *
 * Equal to StandardScaler and LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).
 * @param {ArrayLike<number>[]} rows @param {number[]} classes of the rows, from 0
 * @param {ArrayLike<number>[]} asked @param {number} count of classes
 * @returns {number[][]} for each row asked, a probability per class
 */
export function probabilities(rows, classes, asked, count) {
  const [n, d] = [rows.length, rows[0].length];
  const mean = new Float64Array(d);
  for (const row of rows) for (let c = 0; c < d; c++) mean[c] += row[c] / n;
  const deviation = new Float64Array(d);
  for (const row of rows) for (let c = 0; c < d; c++) deviation[c] += (row[c] - mean[c]) ** 2 / n;
  const scaled = (/** @type {ArrayLike<number>} */ row) =>
    Float64Array.from({ length: d }, (_, c) => (deviation[c] > 1e-18 ? (row[c] - mean[c]) / Math.sqrt(deviation[c]) : 0));
  const known = rows.map(scaled);
  const sizes = new Float64Array(count);
  const means = Array.from({ length: count }, () => new Float64Array(d));
  known.forEach((row, k) => {
    sizes[classes[k]]++;
    for (let c = 0; c < d; c++) means[classes[k]][c] += row[c];
  });
  means.forEach((of, k) => {
    for (let c = 0; c < d; c++) of[c] /= sizes[k] || 1;
  });
  const factor = cholesky(covariance(known, classes, means), d);
  const weights = means.map((of) => solved(factor, of, d));
  const offsets = means.map((of, k) => Math.log(sizes[k] / n) - 0.5 * dot(of, 0, weights[k], 0, d));
  return asked.map((row) => {
    const x = scaled(row);
    const scores = weights.map((of, k) => (sizes[k] ? dot(of, 0, x, 0, d) + offsets[k] : -Infinity));
    const top = Math.max(...scores);
    const parts = scores.map((score) => Math.exp(score - top));
    const total = parts.reduce((a, b) => a + b, 0);
    return parts.map((part) => part / total);
  });
}

/** The covariance within classes, shrunken. @param {Float64Array[]} rows @param {number[]} classes @param {Float64Array[]} means */
function covariance(rows, classes, means) {
  const [n, d] = [rows.length, rows[0].length];
  const found = new Float64Array(d * d);
  const apart = new Float64Array(d);
  rows.forEach((row, k) => {
    for (let c = 0; c < d; c++) apart[c] = row[c] - means[classes[k]][c];
    for (let i = 0; i < d; i++) for (let j = 0; j <= i; j++) found[i * d + j] += ((1 - SHRINKAGE) * apart[i] * apart[j]) / n;
  });
  let trace = 0;
  for (let i = 0; i < d; i++) trace += found[i * d + i] / (1 - SHRINKAGE);
  for (let i = 0; i < d; i++) found[i * d + i] += (SHRINKAGE * trace) / d + 1e-12;
  return found;
}

/** The lower triangular factor of a positive matrix, in place. @param {Float64Array} a @param {number} d */
function cholesky(a, d) {
  for (let j = 0; j < d; j++) {
    for (let i = j; i < d; i++) {
      const rest = a[i * d + j] - dot(a, i * d, a, j * d, j);
      a[i * d + j] = i === j ? Math.sqrt(rest) : rest / a[j * d + j];
    }
  }
  return a;
}

/** The solution of A x = b, from A's factor. @param {Float64Array} factor @param {Float64Array} b @param {number} d */
function solved(factor, b, d) {
  const x = Float64Array.from(b);
  for (let i = 0; i < d; i++) x[i] = (x[i] - dot(factor, i * d, x, 0, i)) / factor[i * d + i];
  for (let i = d - 1; i >= 0; i--) {
    for (let k = i + 1; k < d; k++) x[i] -= factor[k * d + i] * x[k];
    x[i] /= factor[i * d + i];
  }
  return x;
}
