// transformers.js reads the tokenizer, and onnxruntime answers from the ONNX file.
//   node check_node.mjs MODELS
import { readFileSync } from "node:fs";
import { strict as assert } from "node:assert";
import { join, resolve } from "node:path";
import { AutoTokenizer, env } from "@huggingface/transformers";
import * as onnx from "onnxruntime-node";

const folder = resolve(process.argv[2]);
const expected = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
env.allowRemoteModels = false;
env.localModelPath = folder;
const tokenizer = await AutoTokenizer.from_pretrained(expected.seed);

for (const [prompt, tokens] of Object.entries(expected.tokens)) {
  assert.deepEqual(tokenizer.encode(prompt), tokens, prompt);
  assert.equal(tokenizer.decode(tokens), prompt);
}
console.log(`transformers.js: ${Object.keys(expected.tokens).length} prompts`);

const session = await onnx.InferenceSession.create(join(folder, expected.seed, "model.onnx"));
for (const prompt of ["<3+4=", "<9-2="]) {
  const tokens = tokenizer.encode(prompt);
  let text = "";
  while (text.length < 4 && !text.endsWith(">")) {
    const ids = BigInt64Array.from(tokens, BigInt);
    const input = new onnx.Tensor("int64", ids, [1, tokens.length]);
    const { logits } = await session.run({ input_ids: input });
    const last = Array.from(logits.data.slice(-logits.dims[2]));
    tokens.push(last.indexOf(Math.max(...last)));
    text += tokenizer.decode([tokens.at(-1)]);
  }
  assert.equal(text, expected.completions[prompt] + ">", prompt);
}
console.log("onnxruntime: two answers");
