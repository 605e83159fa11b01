/** Principal components of a few vectors, by power iteration on their products. */

import { dot } from "./numbers.js";

/**
 * Points on the first two principal components, and these components' shares of the variance.
 *
 * Signs are chosen so that the last point lies to the right and above of the first.
 * @param {ArrayLike<number>[]} rows
 * @returns {{points: number[][], shares: number[]}}
 */
export function principalPlane(rows) {
  const [n, d] = [rows.length, rows[0].length];
  const centred = rows.map((row) => Float64Array.from(row));
  for (let c = 0; c < d; c++) {
    const mean = centred.reduce((sum, row) => sum + row[c], 0) / n;
    for (const row of centred) row[c] -= mean;
  }
  const products = centred.map((a) => centred.map((b) => dot(a, 0, b, 0, d)));
  const total = products.reduce((sum, row, k) => sum + row[k], 0) || 1;
  const points = rows.map(() => /** @type {number[]} */ ([]));
  const shares = [];
  for (let component = 0; component < 2; component++) {
    let vector = rows.map((_, k) => Math.cos(1 + k * (component + 1)));
    let value = 0;
    for (let turn = 0; turn < 300; turn++) {
      const next = products.map((row) => row.reduce((sum, x, k) => sum + x * vector[k], 0));
      value = Math.hypot(...next);
      if (!value) break;
      vector = next.map((x) => x / value);
    }
    const sign = vector[n - 1] < vector[0] ? -1 : 1;
    vector.forEach((x, k) => points[k].push(sign * x * Math.sqrt(value)));
    shares.push(value / total);
    products.forEach((row, i) =>
      row.forEach((_, j) => {
        row[j] -= value * vector[i] * vector[j];
      }),
    );
  }
  return { points, shares };
}
