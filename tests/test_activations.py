"""Activations of every seed at once are those that TransformerLens has of each."""

import pytest
import torch

from tbtt_interp.activations import read_texts, record, run_activations, site_names
from tbtt_interp.errors import TbttError


@pytest.mark.parametrize("step", [250, None])
def test_every_site_of_every_seed_is_what_transformer_lens_caches(step, line_run):
    found = run_activations(line_run, step=step)
    model = line_run.model(line_run.seeds[1], step)
    _, cache = model.run_with_cache(found.tokens)
    assert list(found.sites) == site_names(model) and set(cache) == set(found.sites)
    for site, activations in found.sites.items():
        assert activations.shape[:2] == (2, 200)
        assert torch.equal(activations[1], cache[site]), site


def test_padding_changes_nothing_before_it(line_run):
    site = "blocks.0.hook_resid_post"
    both = run_activations(line_run, ["<3+4=", "<3-4=-1>"], sites=[site])
    alone = run_activations(line_run, ["<3+4="], sites=[site])
    assert both.lengths.tolist() == [5, 8]
    torch.testing.assert_close(both[site][:, 0, :5], alone[site][:, 0])


def test_a_text_longer_than_the_context_loses_its_left_end(line_run):
    vocabulary = line_run.task.vocabulary
    tokens, lengths = read_texts(["<1+2=3>  \n<3+4="], vocabulary, 9)
    assert lengths.tolist() == [9]
    assert vocabulary.decode(tokens[0].tolist()) == ">  \n<3+4="


def test_what_is_not_there_is_named(line_run):
    with pytest.raises(TbttError, match="site 'resid_past' is not there: the nearest are blocks"):
        run_activations(line_run, ["<3+4="], sites=["resid_past"])
    found = record([line_run.model()], torch.zeros(1, 2, dtype=torch.long), sites=["hook_embed"])
    with pytest.raises(TbttError, match="'hook_pos_embed' is not there: the nearest are hook_em"):
        found["hook_pos_embed"]
    for texts in ([], [""]):
        with pytest.raises(TbttError, match="there is no text, or an empty one"):
            run_activations(line_run, texts)
