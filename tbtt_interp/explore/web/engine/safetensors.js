/** Reads the safetensors format: an 8-byte length, a JSON header, then the tensors' bytes. */

/** @typedef {{shape: number[], data: Float32Array | Float64Array}} Tensor */

/**
 * The float32 tensors of a file, by name.
 * @param {ArrayBuffer} buffer
 * @returns {Map<string, Tensor>}
 */
export function readSafetensors(buffer) {
  if (buffer.byteLength < 8) throw new Error("the weights are damaged: the file is too short");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > buffer.byteLength - 8) {
    throw new Error("the weights are damaged: the header is longer than the file");
  }
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (entry.dtype !== "F32") throw new Error(`${name} is ${entry.dtype}: the page reads float32`);
    const [start, end] = entry.data_offsets;
    const bytes = buffer.slice(8 + length + start, 8 + length + end); // a copy, so aligned
    const data = new Float32Array(bytes);
    const size = entry.shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
    if (data.length !== size) {
      throw new Error(`the weights are damaged: ${name} has ${data.length} numbers`);
    }
    tensors.set(name, { shape: entry.shape, data });
  }
  return tensors;
}

/**
 * The parameters of one model of a stack, whose tensors have a leading seed axis.
 * @param {Map<string, Tensor>} stacked
 * @param {number} index of the seed in the stack
 * @returns {Map<string, Tensor>}
 */
export function oneModel(stacked, index) {
  const found = new Map();
  for (const [name, { shape, data }] of stacked) {
    const size = data.length / shape[0];
    found.set(name, {
      shape: shape.slice(1),
      data: data.subarray(index * size, (index + 1) * size),
    });
  }
  return found;
}
