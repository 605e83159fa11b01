"""What is on screen, as the page's address has it: nothing else is kept between two clicks."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from tbtt_interp.errors import TbttError, unknown

VIEWS = ("attention", "answer", "patching", "probes", "ladder")
SHOWN = ("prompt", "equations", "roles", "QK", "OV")
PANES = ("a", "b")
LONGEST = 500  # characters of a prompt that are kept, its last; no window is near that


class Edge(NamedTuple):
    """An edge of attention; tokens are counted from the prompt's first."""

    layer: int
    head: int
    query: int
    key: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


class Patch(NamedTuple):
    """A place whose activation comes from the clean run; tokens are counted from the first."""

    site: str
    head: int | None
    pos: int

    def __str__(self) -> str:
        return f"{self.site}{'' if self.head is None else f'.{self.head}'}@{self.pos}"


class Reading(NamedTuple):
    """A cell of the probes' map; positions are counted from the prompt's last token, -1."""

    feature: str
    site: str
    pos: int

    def __str__(self) -> str:
        return f"{self.feature}@{self.site}@{self.pos}"


@dataclass(frozen=True, kw_only=True)
class Pane:
    """One of the two models on screen, and what is done to it.

    Attributes:
        run: as the explorer names it.
        seed, step: None is the first, and the last.
        pins: queries whose attention is drawn on the prompt.
        character: of the answer, the one that is attributed.
    """

    run: str = ""
    seed: int | None = None
    step: int | None = None
    layer: int = 0
    head: int = 0
    pins: tuple[int, ...] = ()
    cuts: tuple[Edge, ...] = ()
    patches: tuple[Patch, ...] = ()
    character: int = 0
    probe: Reading | None = None
    place: int = -1

    def act(self, verb: str, argument: str) -> "Pane":
        """This pane after one thing that a person did; see ACTIONS.

        Raises:
            TbttError: if there is no such thing to do, or it says nothing.

        >>> Pane(run="small").act("cut", "0.0.4.1").act("pin", "4").query()
        {'run': 'small', 'pins': '4', 'cuts': '0.0.4.1'}
        """
        if verb not in ACTIONS:
            raise unknown("action", verb, ACTIONS)
        try:
            return ACTIONS[verb](self, argument)
        except ValueError as error:
            raise TbttError(f"{verb} {argument!r} says nothing: {error}") from error

    def query(self) -> dict[str, str]:
        """As the address has it, without what is as at first."""
        first, found = Pane(), {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == getattr(first, field.name):
                continue
            of_many = isinstance(value, tuple) and not hasattr(value, "_fields")
            found[field.name] = ",".join(map(str, value)) if of_many else str(value)
        return found


def read_edge(text: str) -> Edge:
    """An edge as it writes itself.

    >>> read_edge("0.1.4.2")
    Edge(layer=0, head=1, query=4, key=2)
    """
    layer, head, query, key = map(natural, text.split("."))
    if key > query:
        raise ValueError("a query sees no key after it")
    return Edge(layer, head, query, key)


def read_patch(text: str) -> Patch:
    """A patch as it writes itself.

    >>> read_patch("blocks.0.attn.hook_z.1@4")
    Patch(site='blocks.0.attn.hook_z', head=1, pos=4)
    """
    site, _, pos = text.rpartition("@")
    name, _, head = site.rpartition(".")
    if head.isdecimal():
        return Patch(name, int(head), natural(pos))
    return Patch(site, None, natural(pos))


def read_reading(text: str) -> Reading:
    """A cell of the probes' map as it writes itself."""
    feature, site, pos = text.split("@")
    return Reading(feature, site, int(pos))


def natural(text: str) -> int:
    """A count from 0.

    Raises:
        ValueError: if it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"{text!r} is not a number from 0")
    return int(text)


def _toggled(kept: tuple[Any, ...], one: Any) -> tuple[Any, ...]:
    return tuple(k for k in kept if k != one) if one in kept else (*kept, one)


def _pin(pane: Pane, text: str) -> Pane:
    return dataclasses.replace(pane, pins=_toggled(pane.pins, natural(text)))


def _cut(pane: Pane, text: str) -> Pane:
    return dataclasses.replace(pane, cuts=_toggled(pane.cuts, read_edge(text)))


def _patch(pane: Pane, text: str) -> Pane:
    return dataclasses.replace(pane, patches=_toggled(pane.patches, read_patch(text)))


def _restore(pane: Pane, text: str) -> Pane:
    if text not in ("cuts", "patches", "pins"):
        raise ValueError("choose cuts, patches or pins")
    return dataclasses.replace(pane, **{text: ()})


def _head(pane: Pane, text: str) -> Pane:
    layer, head = map(natural, text.split("."))
    return dataclasses.replace(pane, layer=layer, head=head)


def _open(pane: Pane, text: str) -> Pane:
    run, _, seed = text.rpartition(":")
    return dataclasses.replace(Pane(), run=run, seed=natural(seed))


def _probe(pane: Pane, text: str) -> Pane:
    reading = read_reading(text)
    return dataclasses.replace(pane, probe=None if reading == pane.probe else reading)


def _number(name: str, read: Callable[[str], int] = natural) -> Callable[[Pane, str], Pane]:
    return lambda pane, text: dataclasses.replace(pane, **{name: read(text)})


ACTIONS: dict[str, Callable[[Pane, str], Pane]] = {
    "run": lambda pane, text: Pane(run=text, pins=pane.pins, cuts=pane.cuts),  # what all have
    "seed": _number("seed"), "step": _number("step"), "character": _number("character"),
    "place": _number("place", int), "head": _head, "open": _open,
    "pin": _pin, "cut": _cut, "patch": _patch, "restore": _restore, "probe": _probe,
}  # fmt: skip
MANY = {"pins": natural, "cuts": read_edge, "patches": read_patch}
ONE = {"run": str, "seed": natural, "step": natural, "layer": natural, "head": natural,
       "character": natural, "place": int, "probe": read_reading}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class State:
    """All that is on screen.

    Attributes:
        prompt: what both models are asked, and the clean prompt of patching.
        corrupt: the prompt that is patched.
        shown: what attention is of: this prompt, the mean over all equations or over roles, or the
            circuits QK and OV.
        into: the pane that a model of the ladder opens in.
        problems: what an address said that means nothing.
    """

    view: str = VIEWS[0]
    prompt: str = ""
    corrupt: str = ""
    shown: str = SHOWN[0]
    into: str = PANES[1]
    panes: tuple[Pane, Pane] = (Pane(), Pane())
    problems: tuple[str, ...] = ()

    def with_pane(self, number: int, pane: Pane) -> "State":
        """With another pane in its place."""
        panes = (pane, self.panes[1]) if number == 0 else (self.panes[0], pane)
        return dataclasses.replace(self, panes=panes)

    def choose(self, name: str, value: str) -> "State":
        """With another value of what is of the whole page: one of CHOICES.

        Raises:
            TbttError: if there is no such thing, or it has not that value.
        """
        if name not in CHOICES:
            raise unknown("part of the address", name, CHOICES)
        known = CHOICES[name]
        if known is not None and value not in known:
            raise unknown(name, value, known)
        return dataclasses.replace(self, **{name: value[-LONGEST:]})

    def address(self, first: "State") -> str:
        """The query of an address that shows this, wherever it is opened.

        Left out is what is as in a new `State`, if it is so in `first`, too.

        Args:
            first: what is on screen here without an address.

        >>> first = State(prompt="5+7=")
        >>> State(prompt="3+4=", view="answer").address(first)
        '?view=answer&prompt=3%2B4%3D'
        >>> first.address(first)
        '?prompt=5%2B7%3D'
        """
        found = {
            name: getattr(self, name)
            for name in CHOICES
            if {getattr(self, name), getattr(first, name)} != {getattr(State(), name)}
        }
        for name, pane, was in zip(PANES, self.panes, first.panes, strict=True):
            before, now = was.query(), pane.query()
            found |= {f"{name}.{k}": now.get(k, "") for k in ONE | MANY if k in before | now}
        return f"?{urlencode(found)}" if found else ""


CHOICES: Mapping[str, tuple[str, ...] | None] = {
    "view": VIEWS, "prompt": None, "corrupt": None, "shown": SHOWN, "into": PANES
}  # fmt: skip


def read_address(query: str, first: State) -> State:
    """What an address shows; what means nothing in it is left as at first, and said.

    >>> read_address("?view=map", State()).problems
    ("view 'map' is unknown: choose attention, answer, patching, probes or ladder",)
    """
    state, problems = first, []
    for key, value in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
        try:
            state = _read(state, key, value)
        except (TbttError, ValueError) as error:
            text = f"{key}={value}"
            said = isinstance(error, TbttError)
            problems.append(str(error) if said else f"{text[:60]!r} says nothing: {error}")
    return dataclasses.replace(state, problems=tuple(problems))


def _read(state: State, key: str, value: str) -> State:
    pane, _, name = key.partition(".")
    if name and pane in PANES:
        number = PANES.index(pane)
        if name in MANY:
            read = tuple(dict.fromkeys(MANY[name](x) for x in value.split(",") if x))
        elif name in ONE:
            read = ONE[name](value) if value else getattr(Pane(), name)
        else:
            raise unknown("part of the address", key, [f"{pane}.{k}" for k in ONE | MANY])
        return state.with_pane(number, dataclasses.replace(state.panes[number], **{name: read}))
    return state.choose(key, value)
