/** What was computed once, kept for as long as it is among the newest. */

/**
 * What a map has under a key, made if it is not there; beyond `most` the oldest goes.
 * @template T @param {Map<string, T>} map @param {string} key @param {number} most @param {() => T} make
 */
export function kept(map, key, most, make) {
  const found = map.get(key) ?? make();
  map.delete(key);
  map.set(key, found);
  if (map.size > most) map.delete(/** @type {string} */ (map.keys().next().value));
  return found;
}
