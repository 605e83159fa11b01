"""nnsight, transformers and onnxruntime on exported models; needs none of this package.

    python check_python.py MODELS

MODELS is what `tbtt export arithmetic-small-line --to huggingface` wrote, with expected.json: each
prompt's tokens and each model's greedy completion, as this package has them.
"""

import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import torch
from nnsight import LanguageModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

folder = Path(sys.argv[1])
expected = json.loads((folder / "expected.json").read_text())
place = folder / expected["seed"]
model = AutoModelForCausalLM.from_pretrained(place)
tokenizer = AutoTokenizer.from_pretrained(place)

# transformers: tokens, and greedy generation through a pipeline
generate = pipeline("text-generation", model=model, tokenizer=tokenizer)
for prompt, tokens in expected["tokens"].items():
    assert tokenizer(prompt)["input_ids"] == tokens, prompt
for prompt, completion in expected["completions"].items():
    written = generate(prompt)[0]["generated_text"]
    assert written == prompt + completion, (prompt, written, completion)
print(f"transformers: {len(expected['tokens'])} prompts, {len(expected['completions'])} answers")

# nnsight: trace an activation, and patch it from another prompt
traced = LanguageModel(model, tokenizer=tokenizer)
clean, corrupted = "<3+4=", "<3+5="
with traced.trace(clean):
    source = traced.transformer.h[0].output[0].save()
    clean_logits = traced.lm_head.output.save()
with traced.trace(corrupted):
    traced.transformer.h[0].output[0][:] = source
    patched_logits = traced.lm_head.output.save()
with torch.no_grad():
    direct = model(**tokenizer(clean, return_tensors="pt")).logits
assert torch.allclose(clean_logits, direct, atol=1e-4)
assert torch.allclose(patched_logits, direct, atol=1e-4), "the whole stream is the clean run's"
print("nnsight: one trace, one patch")

# ONNX, for transformers.js: a file beside the tokenizer, with the same logits
prompt = torch.tensor([expected["tokens"][clean]])
model = AutoModelForCausalLM.from_pretrained(place, use_cache=False)  # one without nnsight's hooks
program = torch.onnx.export(
    model, (prompt,), input_names=["input_ids"], output_names=["logits"], dynamo=True,
    dynamic_shapes=({1: torch.export.Dim("pos", min=2, max=9)},), verbose=False,
)  # fmt: skip
onnx.save(program.model_proto, place / "model.onnx")
session = onnxruntime.InferenceSession(place / "model.onnx")
logits = session.run(["logits"], {"input_ids": prompt.numpy()})[0]
difference = abs(torch.from_numpy(logits) - direct).max() / direct.abs().max()
assert difference < 1e-5, difference
print("onnx: the same logits")
