"""Addresses of the explorer say all that is on screen, and none is too strange."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbtt_interp.explore.state import (
    SHOWN,
    VIEWS,
    Edge,
    Pane,
    Patch,
    Reading,
    State,
    read_address,
)

counts = st.integers(0, 40)
edges = st.tuples(counts, counts, counts, counts).map(lambda e: (*e[:2], max(e[2:]), min(e[2:])))
patches = st.tuples(
    st.sampled_from(["blocks.0.attn.hook_z", "blocks.3.hook_resid_pre"]),
    st.one_of(st.none(), counts), counts,
)  # fmt: skip
panes = st.fixed_dictionaries({
    "run": st.text(max_size=9), "seed": st.one_of(st.none(), counts),
    "step": st.one_of(st.none(), counts), "layer": counts, "head": counts, "character": counts,
    "pins": st.lists(counts, unique=True), "cuts": st.lists(edges, unique=True),
    "patches": st.lists(patches, unique=True), "place": st.integers(-9, -1),
    "probe": st.one_of(st.none(), st.just(("carry", "blocks.0.attn.hook_z.1", -2))),
})  # fmt: skip
states = st.fixed_dictionaries({
    "view": st.sampled_from(VIEWS), "prompt": st.text(max_size=30),
    "corrupt": st.text(max_size=30), "shown": st.sampled_from(SHOWN),
    "into": st.sampled_from(["a", "b"]), "panes": st.tuples(panes, panes),
})  # fmt: skip


def built(given: dict) -> State:
    """Built here and not in a strategy: what checks types draws at random where to look."""
    kinds = {"cuts": Edge, "patches": Patch}
    found = []
    for pane in given["panes"]:
        many = {k: tuple(kind(*one) for one in pane[k]) for k, kind in kinds.items()}
        probe = Reading(*pane["probe"]) if pane["probe"] else None
        found.append(Pane(**pane | many | {"probe": probe, "pins": tuple(pane["pins"])}))
    return State(**given | {"panes": tuple(found)})


@given(state=states, first=states)
def test_an_address_says_all_that_is_on_screen(state: dict, first: dict) -> None:
    now, before = built(state), built(first)
    assert read_address(now.address(before), before) == now


@given(text=st.text(max_size=60))
def test_no_address_is_too_strange(text: str) -> None:
    assert isinstance(read_address(text, State()), State)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("?view=maps", "view 'maps' is unknown"),
        ("?a.cuts=0.0.1.4", "'a.cuts=0.0.1.4' says nothing: a query sees no key after it"),
        ("?b.seed=-1", "'b.seed=-1' says nothing: '-1' is not a number from 0"),
        ("?c.seed=1", "part of the address 'c.seed' is unknown"),
        ("?a.colour=red", "part of the address 'a.colour' is unknown"),
    ],
)
def test_what_means_nothing_in_an_address_is_said_and_left(address: str, said: str) -> None:
    state = read_address(address, State(prompt="3+4="))
    assert said in state.problems[0]
    assert dataclasses.replace(state, problems=()) == State(prompt="3+4=")


def test_doing_a_thing_twice_undoes_it() -> None:
    for action in ("pin 3", "cut 0.0.4.1", "patch blocks.0.hook_resid_mid@4", "probe carry@x@-1"):
        verb, _, argument = action.partition(" ")
        once = Pane().act(verb, argument)
        assert once != Pane()
        assert once.act(verb, argument) == Pane()
