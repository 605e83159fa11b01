// Reads addresses from standard input; prints, for each, the address of what it shows and what it says of it.

import { address, newState, readAddress } from "../../tbtt_interp/explore/web/state.js";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const found = JSON.parse(Buffer.concat(chunks).toString()).map((hash) => {
  const { state, problems } = readAddress(hash, newState());
  return { address: address(state), problems };
});
console.log(JSON.stringify(found));
