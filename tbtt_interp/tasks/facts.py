"""Fifty countries and their capitals, in the words and the order of the paper's training text."""

from tbtt_interp.tasks.task import Example

CAPITALS = {
    "France": "Paris",
    "the USA": "Washington DC",
    "Japan": "Tokyo",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "the UK": "London",
    "Canada": "Ottawa",
    "Australia": "Canberra",
    "India": "New Delhi",
    "China": "Beijing",
    "Russia": "Moscow",
    "Brazil": "Brasilia",
    "Mexico": "Mexico City",
    "South Korea": "Seoul",
    "Argentina": "Buenos Aires",
    "Egypt": "Cairo",
    "Saudi Arabia": "Riyadh",
    "Turkey": "Ankara",
    "Indonesia": "Jakarta",
    "Nigeria": "Abuja",
    "Pakistan": "Islamabad",
    "Colombia": "Bogota",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "the Netherlands": "Amsterdam",
    "Belgium": "Brussels",
    "Sweden": "Stockholm",
    "Norway": "Oslo",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Poland": "Warsaw",
    "Austria": "Vienna",
    "Switzerland": "Bern",
    "Portugal": "Lisbon",
    "Greece": "Athens",
    "Ireland": "Dublin",
    "New Zealand": "Wellington",
    "South Africa": "Pretoria",
    "Israel": "Jerusalem",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Syria": "Damascus",
    "Lebanon": "Beirut",
    "Jordan": "Amman",
    "Kuwait": "Kuwait City",
    "Qatar": "Doha",
    "Oman": "Muscat",
    "Bahrain": "Manama",
    "Zambia": "Lusaka",
}


def capitals() -> tuple[Example, ...]:
    """The fifty facts; an answer ends at the newline, since a capital may have spaces.

    >>> capitals()[0].prompt, capitals()[0].answer
    ('Capital of France is ', 'Paris \\n')
    """
    return tuple(
        Example(
            line=f"Capital of {country} is {capital} \n",
            prompt=f"Capital of {country} is ",
            answer=f"{capital} \n",
            group="facts",
            labels={"country": country, "capital": capital},
        )
        for country, capital in CAPITALS.items()
    )
