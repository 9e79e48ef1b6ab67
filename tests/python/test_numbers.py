"""The numbers of texts, read as people write them and compared exactly."""

import random
from fractions import Fraction

import pytest

from autodeco.data.checkers import check, checker
from autodeco.data.numbers import last_number, numbers, whole_number
from autodeco.errors import InputError

LONG = "7" * 399
# text, its last number as Python's Fraction reads it
VALUES = [
    ("It is 7", "7"),
    ("It is 7.", "7"),
    ("7, of course", "7"),
    ("7!", "7"),
    ("(7)", "7"),
    ("**7**", "7"),
    ("so 7...", "7"),
    ("`-7`", "-7"),
    ("7:", "7"),
    ("\u201c7\u201d", "7"),
    # thousands
    ("$70,000, which is a lot", "70000"),
    ("1,234,567.", "1234567"),
    ("1,234.50", "1234.5"),
    ("1 234 567", "1234567"),
    ("1\u00a0234,5", "1234.5"),
    ("1\u202f234", "1234"),
    ("1'234'567.25", "1234567.25"),
    ("1\u2019234", "1234"),
    ("1_000_000", "1000000"),
    ("12,34,567 rupees", "1234567"),
    ("1.234.567", "1234567"),
    ("1.234,56", "1234.56"),
    ("1{,}234", "1234"),
    (r"70\,000", "70000"),
    (r"10,\!000", "10000"),
    ("one of 1,2,3", "3"),
    ("1,23", "23"),
    ("1,2345", "2345"),
    ("0,125", "125"),
    ("5 3 12", "12"),
    ("2023 500", "500"),
    # points
    (".5", "0.5"),
    ("-.5", "-0.5"),
    ("$.50", "0.5"),
    ("about 0.50", "0.5"),
    ("version 1.2.3", "3"),
    ("the end.5", "5"),
    # minus
    ("10-5", "5"),
    ("10 - 5", "5"),
    ("5 - 9 = \u22124", "-4"),
    ("\u2013 4", "4"),
    ("is \u20134", "-4"),
    ("is \uff0d4", "-4"),
    ("= - 4", "-4"),
    ("- 4", "4"),
    ("x=-4.", "-4"),
    ("(-4)", "-4"),
    ("5 - -3", "-3"),
    ("2\u20135 days", "5"),
    ("GPT-4", "4"),
    ("f(x)-3", "3"),
    ("5%-3%", "0.03"),
    ("+4", "4"),
    # currencies
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("$-5$", "-5"),
    ("$10-$5", "5"),
    ("\u2212\u20ac3.50", "-3.5"),
    ("3.50 \u20ac", "3.5"),
    ("US$1,000", "1000"),
    ("-USD 12", "-12"),
    (r"\$18", "18"),
    # units
    ("25%", "0.25"),
    (r"12.5\%", "0.125"),
    ("25 percent", "0.25"),
    ("25 per cent.", "0.25"),
    ("5\u2030", "0.005"),
    ("$1.2 million", "1200000"),
    ("3 Billion", "3000000000"),
    ("70k", "70000"),
    ("5 kg", "5"),
    ("5km", "5"),
    ("9.8 m/s^2", "9.8"),
    ("7 s^12", "7"),
    (r"25 \text{ cm}^{2}", "25"),
    ("25 cm\u00b2", "25"),
    # scientific notation and powers
    ("1.5e3", "1500"),
    ("1.5E-3", "0.0015"),
    ("2e+2", "200"),
    ("1.5 x 10^3", "1500"),
    ("1.5 \u00d7 10\u207b\u00b3", "0.0015"),
    (r"6.02 \times 10^{23}", "602000000000000000000000"),
    (r"$1.5\cdot10^{-3}$", "0.0015"),
    ("3*10**4", "30000"),
    ("10^6", "1000000"),
    ("10\u2076", "1000000"),
    ("-10^3", "-1000"),
    ("2^10", "1024"),
    ("2^{-2}", "0.25"),
    ("3 eV", "3"),
    ("3e5f", "5"),
    # fractions
    ("3/4", "3/4"),
    ("-3/4", "-3/4"),
    ("3 / 4 of it", "3/4"),
    ("1,000/3", "1000/3"),
    ("1 1/2", "3/2"),
    ("-1 1/2", "-3/2"),
    ("\u00bd", "1/2"),
    ("1\u00bd", "3/2"),
    ("2 \u2153", "7/3"),
    ("3\u20444", "3/4"),
    (r"\frac{3}{4}", "3/4"),
    (r"-\dfrac{22}{7}", "-22/7"),
    (r"\frac{-1}{3}", "-1/3"),
    (r"\frac12", "1/2"),
    (r"1\frac{3}{4}", "7/4"),
    (r"\frac{\pi}{4}", "4"),
    ("12/05/2024", "2024"),
    ("10/2 = 5", "5"),
    # digits
    ("\uff11\uff12", "12"),
    ("\u0664\u0662", "42"),
    ("\u096b\u096a", "54"),
    ("4\u200b2", "42"),
    ("\u200e-42", "-42"),
    (LONG + "8", LONG + "8"),
    ("0.1", "1/10"),
]
WITH_COMMA = [
    ("3,14", "3.14"),
    ("ist 3,14.", "3.14"),
    ("1.234", "1234"),
    ("1.234,5", "1234.5"),
    ("1 234,5", "1234.5"),
    ("1,234", "1.234"),
    ("3.14", "3.14"),
    ("1,234.5", "1234.5"),
    ("1,2,3", "3"),
    ("-0,5", "-0.5"),
    ("12,5%", "0.125"),
    ("1,5e3", "1500"),
    ("2,5/2", "1.25"),
]


def value(number):
    """What ``Number.value`` and its unit say, read again on their own."""
    negative, digits, below, exponent = number.value
    return (-1 if negative else 1) * Fraction(int(digits), below) * Fraction(10) ** (exponent + number.unit)


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_the_last_number_of_a_text(text, expected):
    assert value(last_number(text)) == Fraction(expected)


@pytest.mark.parametrize(("text", "expected"), WITH_COMMA)
def test_the_last_number_of_a_text_where_the_answer_has_a_decimal_comma(text, expected):
    assert value(last_number(text, decimal_comma=True)) == Fraction(expected)


@pytest.mark.parametrize("text", ["", "seven", "-", ".", "$", "\u00b2", "\\frac{a}{b}", "nan", "infinity"])
def test_a_text_without_a_number(text):
    assert last_number(text) is None


@pytest.mark.parametrize("text", ["1/0", "\\frac{1}{0}", "2^99999999999", "0^-1", "1e" + "9" * 5000, "3/1e99999"])
def test_what_has_no_value_or_too_many_digits_equals_nothing(text):
    assert last_number(text).value is None
    assert not last_number(text).equals(last_number(text))


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("300", "100 200 300", 1),
        ("100200300", "100 200 300", 1),
        ("200", "100 200 300", 0),
        ("0", "1 000 000", 0),
        ("1000000", "1 000 000", 1),
        ("345", "scores: 12 345", 1),
        ("70000", "$70,000, which", 1),
        ("0", "$70,000, which", 0),
        ("200", "It is 1,200.", 0),
        ("5", ".5", 0),
        ("5", "10-5", 1),
        ("-5", "10-5", 0),
        (LONG + "8", LONG + "8", 1),
        (LONG + "8", LONG + "9", 0),
        ("1e400", "1e400", 1),
        ("1e400", "1e401", 0),
        ("1e400", "1" + "0" * 400, 1),
        ("0.1", "0.1000000000000000055511151231257827", 0),
        ("0.3", "0.30", 1),
        ("9007199254740993", "9007199254740992", 0),
        ("1/3", "0.3333333333333333", 0),
        ("1/3", "2/6", 1),
        ("0.75", "3/4", 1),
        ("3,14", "Es ist 3,14.", 1),
        ("3,14", "It is 3.14.", 1),
        ("3.14", "3,14", 0),
        ("1,234", "1234", 1),
        ("0,125", "1/8", 1),
        ("1.234,5", "1234,5", 1),
        ("1 234,5", "Es sind 1234,5.", 1),
        ("1'234,567", "1234,567", 1),
        ("1,234.5", "1,2", 0),
        ("25%", "25 %", 1),
        ("25%", "0.25", 1),
        ("25%", "25", 1),
        ("25%", "0.25%", 0),
        ("25", "25%", 1),
        ("0.25", "25%", 1),
        ("$18", "18 dollars", 1),
        ("18.", "18", 1),
        ("- 4", "\u22124", 1),
        ("1200000", "1.2 million", 1),
        ("1.2 million", "1,200 thousand", 1),
        ("-0", "0.00", 1),
        (7, "7", 1),
        (0.1, "0.1", 1),
        (1e22, "10000000000000000000000", 1),
    ],
)
def test_numbers_are_compared_exactly(answer, text, right):
    assert check(checker("number"), {"answer": answer}, text) == right


@pytest.mark.parametrize("answer", ["seven", "", "1 or 2", "18 apples", "A1", "1/0", True, "1.2.3", "10:30"])
def test_an_answer_that_is_no_number_is_refused(answer):
    assert whole_number(str(answer)) is None
    with pytest.raises(InputError, match=r"is no number|is neither text nor a number"):
        check(checker("number"), {"answer": answer}, "7")


def test_a_program_gets_the_number_without_what_people_write_around_it():
    texts = ["= $1,234.50,", "\u22125.0", "3/4", "1/3", "2^10", "0101", "1.5e3", "12%"]
    assert [last_number(text).text for text in texts] == [
        "1234.50", "-5.0", "0.75", "1/3", "1024", "0101", "1500", "12",
    ]  # fmt: skip
    assert [number.text for number in numbers("1 and -2, then 3.5")] == ["1", "-2", "3.5"]


def test_random_numbers_are_read_back_in_every_form():
    rng = random.Random(0)
    for _ in range(2000):
        whole, part = rng.randrange(10 ** rng.randint(1, 12)), f"{rng.randrange(100):02}"
        minus, thousands = rng.choice(["", "-", "\u2212"]), rng.choice([",", "", "'", "_", "\u00a0"])
        currency, grouped = rng.choice(["", "$", "\u20ac"]), f"{whole:,}".replace(",", thousands)
        text = f"{minus}{currency}{grouped}.{part}"
        text = rng.choice(["", "It is ", "x = ", "**", "("]) + text + rng.choice(["", ".", ",", "!", " km", ")", "**"])
        expected = Fraction(f"{whole}.{part}") * (-1 if minus else 1)
        assert value(last_number(text)) == expected, text


def test_the_last_number_is_the_last_of_all_numbers():
    """It is looked for from the end."""
    rng = random.Random(2)
    pieces = [
        "we get ",
        "so it is ",
        "-",
        "$",
        "1,200",
        " 3/4",
        " x 10^5",
        "7",
        "\u00bd",
        " m/s^2",
        " 5%",
        ". ",
        "\n",
        " two ",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        every = list(numbers(text))
        assert last_number(text) == (every[-1] if every else None), text


def test_texts_of_odd_pieces_never_fail_and_take_time_in_proportion_to_their_length():
    rng = random.Random(1)
    pieces = [
        *"0123456789.,-+/^*%$ {}()\\'_ekM\u2212\u00bd\u2076\u00d7\u0664",
        "\\frac{",
        "}{",
        "10^",
        "e",
        " x 10^",
        "000",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 30)))
        for comma in (False, True):
            for number in numbers(text, comma):
                assert number.value is None or number.equals(number)
    for piece in ("1,000", "1 000 ", "1/", "2^999 ", "\\frac{", "1 1/2 ", "-", "9"):
        last_number(piece * (20_000 // len(piece)))  # were it quadratic, this would take an hour
