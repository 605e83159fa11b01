"""Fifty countries and their capitals, in the words and the order of the paper's training text."""

from collections.abc import Iterable

from tbtt_interp.tasks.arithmetic import OPERANDS, OPERATORS, SHORT_FORM, Pair, equations
from tbtt_interp.tasks.task import Example, Task

CAPITALS = {
    "France": "Paris", "the USA": "Washington DC", "Japan": "Tokyo", "Germany": "Berlin",
    "Italy": "Rome", "Spain": "Madrid", "the UK": "London", "Canada": "Ottawa",
    "Australia": "Canberra", "India": "New Delhi", "China": "Beijing", "Russia": "Moscow",
    "Brazil": "Brasilia", "Mexico": "Mexico City", "South Korea": "Seoul",
    "Argentina": "Buenos Aires", "Egypt": "Cairo", "Saudi Arabia": "Riyadh", "Turkey": "Ankara",
    "Indonesia": "Jakarta", "Nigeria": "Abuja", "Pakistan": "Islamabad", "Colombia": "Bogota",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "the Netherlands": "Amsterdam",
    "Belgium": "Brussels", "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Poland": "Warsaw", "Austria": "Vienna", "Switzerland": "Bern",
    "Portugal": "Lisbon", "Greece": "Athens", "Ireland": "Dublin", "New Zealand": "Wellington",
    "South Africa": "Pretoria", "Israel": "Jerusalem", "Iran": "Tehran", "Iraq": "Baghdad",
    "Syria": "Damascus", "Lebanon": "Beirut", "Jordan": "Amman", "Kuwait": "Kuwait City",
    "Qatar": "Doha", "Oman": "Muscat", "Bahrain": "Manama", "Zambia": "Lusaka",
}  # fmt: skip
SHORT_FORMS = ((f"({'|'.join(CAPITALS)})", r"Capital of \1 is "),)  # France is short for that


def facts(held_out: Iterable[Pair] = ()) -> Task:
    """The task of `capitals`, which has no operand pairs to hold out."""
    return Task.of("facts", capitals(), window=24, batch=576, short_forms=SHORT_FORMS)


def joint(held_out: Iterable[Pair]) -> Task:
    """Equations, and then facts."""
    return Task.of(
        "joint", equations(held_out), capitals(), window=24, batch=576, operands=OPERANDS,
        operators=OPERATORS, short_forms=(SHORT_FORM, *SHORT_FORMS),
    )  # fmt: skip


def capitals() -> tuple[Example, ...]:
    """The fifty facts; an answer ends at the newline, since a capital may have spaces.

    >>> capitals()[0].prompt, capitals()[0].answer
    ('Capital of France is ', 'Paris \\n')
    """
    return tuple(
        Example.of(
            f"Capital of {country} is ", f"{capital} \n", {"country": country, "capital": capital},
            group="facts",
        )
        for country, capital in CAPITALS.items()
    )  # fmt: skip
