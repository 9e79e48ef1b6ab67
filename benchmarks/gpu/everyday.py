"""Families of everyday sums, whose answers are numbers: many kinds of prompts, for heads that generalise.

A family is a function of a random generator that returns a question and its answer. None asks for a least common
multiple, a bare product, an equation or primes, as the unseen families of unseen.yaml do.
"""

import math
import random
from collections.abc import Callable

from autodeco.errors import InputError

Made = tuple[str, int | float]
Family = Callable[[random.Random], Made]
FAMILIES: dict[str, Family] = {}
# These choose between heads on kinds of prompts that no run sees. So they are in no training and in no anchors.
HELD_OUT = (
    "remainder", "median", "change", "shared", "roman", "coins", "discount", "minutes-between", "multiples", "square",
    "proportion", "formula", "divisor-count", "path", "growth", "working-together",
)  # fmt: skip
NAMES = [
    "Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mona",
    "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Yusuf",
]  # fmt: skip
THINGS = [
    "apples", "books", "stamps", "cards", "marbles", "pencils", "shells", "coins", "stickers", "eggs", "bottles",
    "tickets",
]  # fmt: skip
# How an answer is asked for: a number alone, some reasoning, or as the model likes.
ENDINGS = (
    "", "", " Answer with the number only.", " Give only the number.", " Think step by step, and end with the number.",
    " Explain briefly, then give the result.", " Show your work. The last line is the result.",
)  # fmt: skip
ROMAN = ((100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
UNITS = (
    ("kilometers", "meters", 1000), ("hours", "minutes", 60), ("weeks", "days", 7), ("feet", "inches", 12),
    ("days", "hours", 24), ("minutes", "seconds", 60), ("dozen", "pieces", 12),
)  # fmt: skip
MOST_REPEATS = 2000  # questions in a row that were there before, after which a family has no others


def problems(name: str, number: int, seed: int) -> list[dict]:
    """Return ``number`` different problems of the family ``name``; raises InputError where it has fewer."""
    rng, found, repeats = random.Random(f"{name} {seed}"), {}, 0
    while len(found) < number:
        question, answer = FAMILIES[name](rng)
        repeats = repeats + 1 if question in found else 0
        if repeats > MOST_REPEATS:
            raise InputError(f"family {name}: has {len(found)} questions, not {number}; ask for fewer")
        found.setdefault(
            question, f"{answer:.4f}".rstrip("0").rstrip(".") if isinstance(answer, float) else str(answer)
        )
    return [
        {"prompt": [{"role": "user", "content": question + rng.choice(ENDINGS)}], "answer": answer, "family": name}
        for question, answer in found.items()
    ]


def family(make: Family) -> Family:
    """Register ``make`` under its name."""
    FAMILIES[make.__name__.replace("_", "-")] = make
    return make


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


@family
def difference(rng: random.Random) -> Made:
    a, b = sorted(rng.sample(range(100, 3000), 2))
    asked = rng.choice(["What is {b} - {a}?", "Subtract {a} from {b}.", "How much more is {b} than {a}?"])
    return asked.format(a=a, b=b), b - a


@family
def percentage(rng: random.Random) -> Made:
    p, n = rng.choice([5, 10, 15, 20, 25, 30, 40, 60, 75, 80]), 20 * rng.randint(2, 60)
    asked = rng.choice(
        ["What is {p}% of {n}?", "Calculate {p} percent of {n}.", "{n} people came; {p}% were children. How many?"]
    )
    return asked.format(p=p, n=n), p * n // 100


@family
def average(rng: random.Random) -> Made:
    k = rng.randint(3, 5)
    mean, offsets = rng.randint(10, 90), [rng.randint(-9, 9) for _ in range(k - 1)]
    numbers = [mean + each for each in offsets] + [mean - sum(offsets)]
    return f"{rng.choice(['What is the average of', 'Find the mean of'])} {_listed(numbers)}?", mean


@family
def remainder(rng: random.Random) -> Made:
    a, b = rng.randint(30, 900), rng.randint(3, 29)
    asked = rng.choice(["What is the remainder when {a} is divided by {b}?", "Compute {a} mod {b}."])
    return asked.format(a=a, b=b), a % b


@family
def quotient(rng: random.Random) -> Made:
    b, q = rng.randint(3, 25), rng.randint(4, 60)
    asked = rng.choice(
        ["What is {a} divided by {b}?", "{a} sweets are shared equally by {b} children. How many does each get?"]
    )
    return asked.format(a=b * q, b=b), q


@family
def rounding(rng: random.Random) -> Made:
    n, to = rng.randint(1001, 99999), rng.choice([10, 100, 1000])
    n += n % to == to // 2  # no number half-way, which some round down
    return f"Round {n} to the nearest {to}.", (n + to // 2) // to * to


@family
def largest(rng: random.Random) -> Made:
    numbers = rng.sample(range(100, 9999), rng.randint(5, 9))
    low, *_, second, high = sorted(numbers)
    which, found = rng.choice([("largest", high), ("smallest", low), ("second largest", second)])
    return f"Which is the {which} of these numbers: {_listed(numbers)}?", found


@family
def how_many_above(rng: random.Random) -> Made:
    numbers, bound = [rng.randint(1, 99) for _ in range(rng.randint(6, 10))], rng.randint(30, 70)
    odd, above = sum(n % 2 for n in numbers), sum(n > bound for n in numbers)
    which, found = rng.choice([(f"greater than {bound}", above), ("even", len(numbers) - odd), ("odd", odd)])
    return f"How many of these numbers are {which}? {_listed(numbers)}", found


@family
def median(rng: random.Random) -> Made:
    numbers = rng.sample(range(1, 99), rng.choice([5, 7]))
    return f"What is the median of {_listed(numbers)}?", sorted(numbers)[len(numbers) // 2]


@family
def spread(rng: random.Random) -> Made:
    numbers = rng.sample(range(1, 250), rng.randint(4, 8))
    asked = f"What is the difference between the largest and the smallest of {_listed(numbers)}?"
    return asked, max(numbers) - min(numbers)


@family
def minutes_between(rng: random.Random) -> Made:
    start, lasts = rng.randint(6 * 60, 18 * 60), rng.randint(15, 300)
    times = (f"{minute // 60}:{minute % 60:02d}" for minute in (start, start + lasts))
    train = "A train leaves at {} and arrives at {}. How many minutes does it take?"
    film = "A film starts at {} and ends at {}. How many minutes is it long?"
    return rng.choice([train, film]).format(*times), lasts


@family
def units(rng: random.Random) -> Made:
    (one, other, factor), n = rng.choice(UNITS), rng.randint(2, 90)
    return f"How many {other} are {n} {one}?", n * factor


@family
def change(rng: random.Random) -> Made:
    price, number = rng.randint(2, 19), rng.randint(2, 6)
    paid = -(-price * number // 10) * 10 + 10 * rng.randint(0, 3)
    bought = f"{rng.choice(NAMES)} buys {number} {rng.choice(THINGS)} for {price} dollars each"
    return f"{bought} and pays with {paid} dollars. How many dollars are returned?", paid - price * number


@family
def perimeter(rng: random.Random) -> Made:
    a, b, place = rng.randint(3, 80), rng.randint(3, 80), rng.choice(["garden", "field", "room", "yard"])
    return f"A {place} is {a} meters long and {b} meters wide. What is its perimeter in meters?", 2 * (a + b)


@family
def roman(rng: random.Random) -> Made:
    n = rest = rng.randint(11, 399)
    text = ""
    for value, letters in ROMAN:
        text, rest = text + letters * (rest // value), rest % value
    return f"Which number is the Roman numeral {text}?", n


@family
def binary(rng: random.Random) -> Made:
    n = rng.randint(5, 127)
    return f"Convert the binary number {n:b} to decimal.", n


@family
def digit_sum(rng: random.Random) -> Made:
    n = rng.randint(100, 999999)
    return f"What is the sum of the digits of {n}?", sum(map(int, str(n)))


@family
def fraction_of(rng: random.Random) -> Made:
    bottom = rng.choice([3, 4, 5, 6, 8])
    top, whole = rng.randint(1, bottom - 1), bottom * rng.randint(4, 40)
    asked = rng.choice(["What is {t}/{b} of {w}?", "{w} guests were invited and {t}/{b} of them came. How many came?"])
    return asked.format(t=top, b=bottom, w=whole), top * whole // bottom


@family
def discount(rng: random.Random) -> Made:
    price, off = 20 * rng.randint(2, 25), rng.choice([5, 10, 15, 20, 25, 30, 40, 50])
    sold = f"A {rng.choice(['coat', 'bike', 'lamp', 'phone', 'chair'])} costs {price} dollars."
    return f"{sold} It is sold with a discount of {off}%. What is the new price in dollars?", price * (100 - off) // 100


@family
def travelled(rng: random.Random) -> Made:
    speed, hours = 5 * rng.randint(4, 24), rng.randint(2, 9)
    what = rng.choice(["car", "bus", "train", "cyclist"])
    return f"A {what} travels at {speed} km per hour for {hours} hours. How many km is that?", speed * hours


@family
def ages(rng: random.Random) -> Made:
    a, older, years = rng.randint(4, 30), rng.randint(2, 25), rng.randint(2, 15)
    one, two = rng.sample(NAMES, 2)
    told = f"{one} is {a} years old. {two} is {older} years older."
    return f"{told} How old will {two} be in {years} years?", a + older + years


@family
def shared(rng: random.Random) -> Made:
    one, two, three = rng.sample(NAMES, 3)
    a, more, fewer = rng.randint(5, 60), rng.randint(5, 60), rng.randint(2, 5)
    told = (
        f"{one} has {a} {rng.choice(THINGS)}. {two} has {more} more than {one}. {three} has {fewer} fewer than {two}."
    )
    return f"{told} How many do the three have together?", a + (a + more) + (a + more - fewer)


@family
def left_over(rng: random.Random) -> Made:
    had, (lost, gave, sold) = rng.randint(60, 300), [rng.randint(3, 18) for _ in range(3)]
    told = f"{rng.choice(NAMES)} had {had} {rng.choice(THINGS)}, lost {lost}, gave {gave} to a friend and sold {sold}."
    return f"{told} How many are left?", had - lost - gave - sold


@family
def boxes(rng: random.Random) -> Made:
    each, number, more = rng.randint(3, 24), rng.randint(3, 15), rng.randint(2, 40)
    told = f"A shop has {number} boxes with {each} {rng.choice(THINGS)} in each box, and {more} loose ones."
    return f"{told} How many are there in all?", each * number + more


@family
def mixed_purchase(rng: random.Random) -> Made:
    a, b, n, m = rng.randint(2, 12), rng.randint(2, 12), rng.randint(2, 9), rng.randint(2, 9)
    told = f"Pens cost {a} dollars and notebooks cost {b} dollars."
    return f"{told} How much do {n} pens and {m} notebooks cost together?", a * n + b * m


@family
def temperature(rng: random.Random) -> Made:
    start, fall, rise = rng.randint(-9, 20), rng.randint(3, 25), rng.randint(2, 20)
    told = f"The temperature was {start} degrees. It fell by {fall} degrees in the night"
    return f"{told} and rose by {rise} degrees in the morning. What is it now?", start - fall + rise


@family
def wages(rng: random.Random) -> Made:
    pay, hours, days = rng.randint(8, 35), rng.randint(3, 9), rng.randint(2, 6)
    told = f"{rng.choice(NAMES)} earns {pay} dollars an hour and works {hours} hours a day."
    return f"{told} How many dollars is that in {days} days?", pay * hours * days


@family
def saving(rng: random.Random) -> Made:
    weekly, weeks, has = rng.randint(3, 30), rng.randint(4, 16), rng.randint(10, 90)
    told = f"{rng.choice(NAMES)} has {has} dollars and saves {weekly} dollars a week."
    return f"{told} How many dollars are there after {weeks} weeks?", has + weekly * weeks


@family
def running_total(rng: random.Random) -> Made:
    steps = [rng.randint(2, 20) for _ in range(rng.randint(3, 5))]
    steps = [rng.choice([1, -1]) * step for step in steps]
    start = rng.randint(60, 120)
    text = ", then ".join(f"{'add' if step > 0 else 'subtract'} {abs(step)}" for step in steps)
    return f"Start with {start}, then {text}. What is the result?", start + sum(steps)


@family
def seats(rng: random.Random) -> Made:
    people, bus = rng.randint(40, 400), rng.choice([12, 15, 20, 25, 30, 45])
    told = f"{people} people travel in buses with {bus} seats each."
    return f"{told} How many buses are needed at least?", -(-people // bus)


@family
def power(rng: random.Random) -> Made:
    base, most = rng.choice([(2, 12), (3, 6), (5, 4), (10, 6)])
    exponent, more = rng.randint(2, most), rng.randint(1, 99)
    return f"What is {base} to the power of {exponent}, plus {more}?", base**exponent + more


@family
def factorial(rng: random.Random) -> Made:
    n, more = rng.randint(3, 7), rng.randint(1, 400)
    return f"What is {n}! + {more}?", math.factorial(n) + more


@family
def consecutive(rng: random.Random) -> Made:
    first, number = rng.randint(1, 40), rng.randint(3, 8)
    asked = f"What is the sum of the {number} consecutive numbers that begin with {first}?"
    return asked, sum(range(first, first + number))


@family
def pages(rng: random.Random) -> Made:
    daily, days, rest = rng.randint(8, 45), rng.randint(3, 14), rng.randint(5, 120)
    told = f"A book has {daily * days + rest} pages. {rng.choice(NAMES)} reads {daily} pages a day."
    return f"{told} How many pages are left after {days} days?", rest


@family
def ratio(rng: random.Random) -> Made:
    a, b, part = rng.randint(1, 7), rng.randint(1, 7), rng.randint(3, 25)
    b += a == b
    one, two = rng.sample(NAMES, 2)
    told = f"{one} and {two} share {(a + b) * part} dollars in the ratio {a}:{b}."
    return f"{told} How many dollars does {one} get?", a * part


@family
def weekdays(rng: random.Random) -> Made:
    weeks, days = rng.randint(2, 20), rng.randint(1, 6)
    return f"How many days are {weeks} weeks and {days} days?", 7 * weeks + days


@family
def decimals(rng: random.Random) -> Made:
    a, b = rng.randint(101, 9999), rng.randint(101, 9999)
    return f"What is {a / 100:.2f} + {b / 100:.2f}?", round((a + b) / 100, 2)


@family
def vowels(rng: random.Random) -> Made:
    words = " ".join(rng.sample(THINGS, rng.randint(1, 3)))
    return f"How many vowels (a, e, i, o, u) are in: {words}?", sum(map(words.count, "aeiou"))


@family
def words_in(rng: random.Random) -> Made:
    words = [rng.choice(THINGS + NAMES) for _ in range(rng.randint(4, 14))]
    return f"How many words are in this list: {' '.join(words)}?", len(words)


@family
def corners(rng: random.Random) -> Made:
    t, s, p = rng.randint(1, 9), rng.randint(1, 9), rng.randint(1, 5)
    return f"How many corners do {t} triangles, {s} squares and {p} pentagons have in total?", 3 * t + 4 * s + 5 * p


@family
def coins(rng: random.Random) -> Made:
    q, d, n = rng.randint(1, 9), rng.randint(1, 9), rng.randint(1, 9)
    return f"How many cents are {q} quarters, {d} dimes and {n} nickels?", 25 * q + 10 * d + 5 * n


@family
def multiples(rng: random.Random) -> Made:
    k, low = rng.randint(3, 12), rng.randint(1, 60)
    high = low + rng.randint(20, 90)
    found = high // k - (low - 1) // k
    return f"How many multiples of {k} are there from {low} to {high}, both included?", found


@family
def square(rng: random.Random) -> Made:
    n = rng.randint(11, 99)
    return rng.choice(["What is {n} squared?", "Calculate the square of {n}.", "{n}^2 ="]).format(n=n), n * n


@family
def proportion(rng: random.Random) -> Made:
    bought, price, more = rng.randint(2, 9), rng.randint(2, 15), rng.randint(3, 20)
    what = rng.choice(THINGS)
    told = f"{bought} {what} cost {bought * price} dollars."
    return f"{told} How many dollars do {more} {what} cost at the same price?", more * price


@family
def formula(rng: random.Random) -> Made:
    a, b, x = rng.randint(2, 9), rng.randint(1, 20), rng.randint(2, 12)
    return f"What is {a} * x^2 + {b} for x = {x}?", a * x * x + b


@family
def divisor_count(rng: random.Random) -> Made:
    n = rng.randint(12, 99)
    return f"How many positive divisors does {n} have?", sum(n % k == 0 for k in range(1, n + 1))


@family
def path(rng: random.Random) -> Made:
    side, width = rng.randint(6, 30), rng.randint(1, 4)
    told = (
        f"A square lawn with sides of {side} meters has a path of {width} meters width all around it, on the outside."
    )
    return f"{told} What is the area of the path in square meters?", (side + 2 * width) ** 2 - side * side


@family
def growth(rng: random.Random) -> Made:
    start, factor, times = rng.randint(2, 30), rng.choice([2, 2, 3]), rng.randint(2, 5)
    word = {2: "doubles", 3: "triples"}[factor]
    told = f"A colony of {start} cells {word} every hour."
    return f"{told} How many cells are there after {times} hours?", start * factor**times


@family
def working_together(rng: random.Random) -> Made:
    a, b, hours = rng.randint(3, 20), rng.randint(3, 20), rng.randint(2, 8)
    one, two = rng.sample(NAMES, 2)
    told = f"{one} packs {a} boxes an hour and {two} packs {b} boxes an hour. Both work for {hours} hours."
    return f"{told} How many boxes do they pack together?", (a + b) * hours
