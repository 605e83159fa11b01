"""Numbers of the page that no other test reads, computed by hand; what it refuses; its link."""

import re

import pytest
import torch
from browser.pointing import cell, expect, pane, value

from tbtt_interp.evaluate import complete
from tbtt_interp.runs import Run


@pytest.mark.parametrize(
    ("name", "prompt"), [("line", "<3+4="), ("facts", "Capital of France is ")]
)
def test_an_answer_s_characters_have_the_library_s_probabilities(
    opened, request, name: str, prompt: str
) -> None:
    """Also of a prompt that is longer than the context."""
    run: Run = request.getfixturevalue(f"{name}_run")
    typed = {"line": "3%2B4", "facts": "France"}[name]
    page = opened("served", f"prompt={typed}&a.run={name}&b.run={name}")
    vocabulary = run.task.vocabulary
    said = complete(run.parameters(), run.shape, prompt, vocabulary, run.task.terminators)[0]
    tokens = pane(page).locator(".said")
    expect(tokens).to_have_count(len(said.text))
    shown = [float(text) for text in tokens.locator("small").all_inner_texts()]
    assert shown == pytest.approx(said.probabilities, abs=0.006)


def test_means_of_attention_are_means_of_each_prompt_s(opened, deep_run: Run) -> None:
    """By position and by role, of a head in the second layer."""
    model, task = deep_run.model(), deep_run.task
    patterns = []
    for example in task.examples:
        tokens = torch.tensor([task.vocabulary.encode(example.prompt + example.answer[:-1])])
        with torch.no_grad():
            cache = model.run_with_cache(tokens, names_filter="blocks.1.attn.hook_pattern")[1]
        patterns.append(cache["blocks.1.attn.hook_pattern"][0, 1])
    for shown, key in (("equations", "attention"), ("roles", "roles")):
        address = f"view=attention&shown={shown}&prompt=3%2B4&a.run=deep&b.run=line"
        page = opened("served", f"{address}&a.layer=1&a.head=1")
        for query, source in ((4, 1), (3, 2)):
            mean = float(torch.stack([pattern[query, source] for pattern in patterns]).mean())
            assert value(page, f"0/{key}/{query}/{source}") == pytest.approx(mean, abs=1e-5), shown


def test_the_last_stream_of_the_lens_predicts_what_the_model_says(opened, line_run: Run) -> None:
    page = opened("served", "view=inside&prompt=3%2B4&a.run=line&b.run=line")
    said = pane(page).locator(".said").first.inner_text().split("\n")
    tip = cell(page, "0/lens/2/4").get_attribute("aria-label")
    assert tip.startswith("after =, read at blocks.0.hook_resid_post: ")
    likeliest, probability = tip.split(": ")[1].split(", ")[0].split()
    assert likeliest == said[0] and float(probability) == pytest.approx(float(said[1]), abs=0.006)


def test_pairs_that_cannot_be_patched_say_why(opened) -> None:
    page = opened("served", "view=patching&prompt=3%2B4&a.run=line&b.run=line")
    reasons = {
        "<3+4=7": "give two of equal length", "4+3": "have the same answer",
        "": "The corrupted prompt is empty", "3+x": "no token for",
    }  # fmt: skip
    for prompt, why in reasons.items():
        page.get_by_label("Corrupted prompt").fill(prompt)
        expect(pane(page).locator(".message").first).to_contain_text(re.compile(why))


def test_a_copied_link_shows_the_same(opened) -> None:
    page = opened("served", "view=attention&prompt=3%2B4&a.run=line&b.run=line")
    cell(page, "0/attention/4/1").click()
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    margin = pane(page).locator(".answer b").inner_text()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    expect(pane(page).locator(".chips")).to_contain_text("edge 0.0: = at 5 → 3 at 2")
    assert pane(page).locator(".answer b").inner_text() == margin
