"""The probes and the ladder, as a person reads them."""

import re

import numpy as np
import pytest
from browser.pointing import cell, expect, pane, value
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tbtt_interp.explore.probe_tables import CONTROLS
from tbtt_interp.model_tables import models_table
from tbtt_interp.probes.datasets import read_cells
from tbtt_interp.probes.grid import probe_grid
from tbtt_interp.probes.labels import pair_groups
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run

SITE = "blocks.0.hook_resid_post"


def test_probes_are_computed_when_asked_and_are_the_library_s(opened, line_run: Run) -> None:
    page = opened("served", "view=probes&prompt=3%2B4&a.run=line&b.run=line")
    page.set_default_timeout(90_000)
    expect(pane(page)).to_contain_text("have not been computed yet")
    pane(page).get_by_role("button", name="Compute them").click()
    expect(pane(page).locator("figure.probe-detail")).to_be_visible(timeout=90_000)
    row = probe_grid(line_run, ["carry"], sites=[SITE], positions=[-1], controls=CONTROLS).iloc[0]
    tip = cell(page, "0/probes/7/5").get_attribute("aria-label")
    assert tip.startswith("carry at resid_post, read at =: ")
    assert value(page, "0/probes/7/5") == pytest.approx(row["accuracy"], abs=6e-4)
    shown = dict(re.findall(r"(?:^|; )([a-z -]+) (\d\.\d\d)(?=;|$)", tip))
    for column, name in (("control", "control tasks"), ("untrained", "untrained model")):
        assert float(shown[name]) == pytest.approx(row[column], abs=6e-3), name
    assert f"{row['held_out_correct']} of {row['held_out_of']} held-out labels" in tip
    # what a probe cannot show is greyed, and it is said why
    assert "trivial" in cell(page, "0/probes/0/5").get_attribute("class")
    assert "text alone" in cell(page, "0/probes/0/5").get_attribute("aria-label")
    # by keyboard to another cell, of both models
    cell(page, "0/probes/7/5").focus()
    for key in ("ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile("probe=sign@"))
    heading = pane(page, "B").get_by_role("heading", name="sign at resid_post, read at =")
    expect(heading).to_be_visible()


def test_a_probe_reads_the_prompt_without_having_been_fitted_on_it(opened, line_run: Run) -> None:
    page = opened("served", f"view=probes&prompt=3%2B4&probe=units@{SITE}@-1&a.run=line&b.run=line")
    page.set_default_timeout(90_000)
    if pane(page).get_by_role("button", name="Compute them").is_visible():
        pane(page).get_by_role("button", name="Compute them").click()
    cell(page, "0/reading/0/0").wait_for()
    prompts = PromptSet.of_seed(line_run, line_run.seeds[0])
    texts = [example.prompt for example in prompts.examples]
    groups, asked = pair_groups(prompts.examples), texts.index("<3+4=")
    fitted = ~prompts.held_out & (groups != groups[asked])
    units = np.array([int(example.labels["units"]) for example in prompts.examples])
    activations = read_cells(line_run.model(seed=0), prompts, texts, [SITE])
    for column, pos in enumerate(range(-5, 0)):
        x = activations[SITE, pos].double().numpy()
        probe = make_pipeline(
            StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
        )
        if pos == -5:  # every prompt is alike there, so that it is left with the frequencies
            expected = np.bincount(units[fitted]) / fitted.sum()
        else:
            expected = probe.fit(x[fitted], units[fitted]).predict_proba(x[asked : asked + 1])[0]
        shown = [value(page, f"0/reading/{row}/{column}") for row in range(10)]
        assert shown == pytest.approx(expected, abs=2e-3), pos


def test_a_file_without_probes_says_how_to_have_them(opened) -> None:
    page = opened("file", "view=probes&prompt=3%2B4&a.run=line&b.run=line")
    expect(pane(page)).to_contain_text("write the page with --probes")


def test_a_dot_of_the_ladder_opens_its_model(opened, line_run, file_run, deep_run) -> None:
    page = opened("served", "view=ladder&prompt=3%2B4&a.run=line&b.run=line")
    runs = {"line": line_run, "file": file_run, "deep": deep_run}
    figure = page.locator("#shared figure", has=page.get_by_role("heading", name="Held-out"))
    dots = figure.get_by_role("button", name=re.compile("open .*as model B"))
    shown = {}
    for dot in dots.all():
        words = dot.get_attribute("aria-label")
        name, seeds = re.match(r"(\w+), seeds? ([\d, ]+):", words).groups()
        shown |= {f"{name}/{k}": float(dot.get_attribute("data-value")) for k in seeds.split(", ")}
    expected = {
        f"{name}/{row['seed']}": row["held_out_accuracy"]
        for name, run in runs.items() for row in models_table([run]).to_dict("records")
    }  # fmt: skip
    assert shown == pytest.approx(expected, abs=5e-3)
    assert "95 % CI" in figure.locator("line.mean").first.get_attribute("data-tip")
    name, seed = dots.nth(0).get_attribute("data-act").removeprefix("open ").split(":")
    dots.nth(0).focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"b.run={name}&b.seed={seed}"))
    expect(pane(page, "B")).to_contain_text(f"of {runs[name].config.steps:,}, ")
