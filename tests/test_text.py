"""Models speak text, as every TransformerLens user types it, and read it as our vocabularies do."""

import os
import subprocess
import sys

import pytest
import torch

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import complete
from tbtt_interp.runs import Run
from tbtt_interp.tasks import TASKS, Vocabulary
from tbtt_interp.tokenizer import CharacterTokenizer


@pytest.fixture(scope="module")
def shipped() -> Run:
    return tbtt.load_run("arithmetic-small-line")


@pytest.mark.parametrize("name", [*TASKS, "any script"])
def test_every_text_is_read_as_the_vocabulary_reads_it(name):
    texts = ["e\u0301é\u200d\tßﬁ🙂 \r\n"]
    if name in TASKS:
        texts = [text for e in tbtt.load_task(name).examples for text in (e.prompt, e.line)]
    vocabulary = Vocabulary.of(texts)
    tokenizer = CharacterTokenizer(vocabulary, "\n", n_ctx=64)
    expected = [vocabulary.encode(text) for text in texts]
    assert tokenizer(texts)["input_ids"] == expected
    assert tokenizer.batch_decode(expected, skip_special_tokens=True) == texts


def test_a_model_speaks_text(shipped: Run):
    model, vocabulary = shipped.model(seed=1), shipped.task.vocabulary
    prompt = "<5+7="
    tokens = torch.tensor([vocabulary.encode(prompt)])
    assert torch.equal(model.to_tokens(prompt), tokens)
    assert model.to_str_tokens(prompt) == list(prompt)
    assert model.to_string(tokens[0]) == prompt
    assert model.to_single_token("+") == vocabulary.index["+"]
    assert torch.equal(model(prompt), model(tokens))


def test_a_model_writes_its_greedy_answer_and_stops_at_its_end(shipped: Run):
    model, run, prompt = shipped.model(), shipped, "<3+4="
    answer = complete(
        run.parameters(), run.shape, prompt, run.task.vocabulary, run.task.terminators, limit=4
    )[0].text
    written = model.generate(prompt, max_new_tokens=4, do_sample=False, verbose=False)
    assert written == prompt + answer


def test_no_character_at_an_end_of_a_prompt_is_taken_for_padding(shipped: Run):
    model, vocabulary = shipped.model(), shipped.task.vocabulary
    for last in vocabulary.characters:
        prompt = "<1+2=" + last
        expected = model(torch.tensor([vocabulary.encode(prompt)]))[0, -1].argmax()
        written = model.generate(prompt, max_new_tokens=1, do_sample=False, verbose=False)
        assert written == prompt + vocabulary.characters[expected]


def test_prompts_of_two_lengths_are_padded_where_no_logit_sees_it(shipped: Run):
    model = shipped.model()
    logits = model(["<1+2=", "<9+9=1"])
    # float32, two orders of summation: 4e-5 on logits of size 10
    torch.testing.assert_close(logits[0, :5], model("<1+2=")[0], rtol=0, atol=1e-4)
    with pytest.raises(TbttError, match=r"cannot be padded on the left, .*: give prompts of one"):
        model.generate(["<1+2=", "<9+9=1"], verbose=False)


def test_unknown_characters_are_named_and_long_texts_keep_their_end(shipped: Run):
    model = shipped.model()
    with pytest.raises(TbttError, match="'<5×7=' has '×', which this model has no token for"):
        model("<5×7=")
    assert model.to_string(model.to_tokens("<1+2=3>\n<5+7=")[0]) == "=3>\n<5+7="


@pytest.mark.parametrize("words", [["-c", "import tbtt_interp"], ["-m", "tbtt_interp", "--help"]])
def test_what_reads_no_model_takes_less_than_half_a_second(words):
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = os.times()  # seconds of a processor, so that a busy machine is no failure
    user, system = after.children_user, after.children_system
    assert user - before.children_user + system - before.children_system < 0.5
