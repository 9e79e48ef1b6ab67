"""How numbers are written: separated thousands (1,200; 1 200; 1'200; 1_200; 12,34,567; 1{,}200), .5, currencies, every
minus of Unicode, 1.5e3, 1.5 x 10^3, 2^10, fractions, LaTeX, every script's digits, and units of percent to trillion."""

import re

SP = "[ \u00a0\u2007\u2009\u202f]"
MINUS = "\u2010\u2011\u2012\u2013\u2212\u207b\ufe63\uff0d-"
CURRENCY = "(?:[A-Z]{0,3}[$€£¥₹₽₩₺₪₫₱฿₦¢]|USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|Rs\\.?)"
VULGAR = "".join(map(chr, (*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189)))
HIGH = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
FULL_WIDTH = "".join(chr(0xFEE0 + ord(sign)) for sign in "%$,./^*+")
ALIKE = str.maketrans(FULL_WIDTH + "\u066b\u066c\u066a\u2044\u2215", "%$,./^*+.,%//")
LATEX = {"{,}": ",", "\\,": "\u2009", "\\;": " ", "\\:": " ", "\\ ": " ", "\\!": "", "\\$": "$", "\\%": "%"}
LATEX_MARK = re.compile("|".join(map(re.escape, LATEX)))


def _plain_pattern(decimal_comma: bool) -> re.Pattern:
    """A number of digits, separators and a decimal mark alone; what is no whole group of thousands is no thousands."""
    first, lead = rf"(?<!\d)(?<!\d[,.'\u2019_]|\d{SP})", r"[1-9]\d{0,2}"
    end = r"(?!\d|[,.]\d)"
    point, either = r"(?:\.\d++)?", r"(?:[,.]\d++)?"
    grouped = [
        rf"{lead}(?:,\d{{3}})++{point}{end}",
        rf"[1-9]\d?(?:,\d\d(?!\d))++,\d{{3}}{point}{end}",
        rf"{lead}(?:\.\d{{3}})++,\d++{end}",
        rf"{lead}(?:\.\d{{3}}){{2,}}+{end}",
        rf"{lead}(?:{SP}\d{{3}})++{either}(?!{SP}\d){end}",
        rf"{lead}(?:['\u2019]\d{{3}})++{either}(?!['\u2019]\d){end}",
        rf"{lead}(?:_\d{{3}})++{either}(?!_\d){end}",
    ]
    if decimal_comma:
        of_commas = [rf"{lead}(?:,\d{{3}})++\.\d++{end}", rf"{lead}(?:,\d{{3}}){{2,}}+{end}"]
        grouped = [*of_commas, *grouped[2:], rf"{lead}(?:\.\d{{3}})++{end}", rf"\d++,\d++{end}"]
    rest = [
        r"(?<!\d)(?<!\d\.)\d++\.\d++(?!\.\d)",
        r"(?<![\w.])[.,]\d++" if decimal_comma else r"(?<![\w.])\.\d++",
        r"\d++",
    ]
    return re.compile("|".join([rf"{first}(?:{'|'.join(grouped)})", *rest]))


PLAIN = {comma: _plain_pattern(comma) for comma in (False, True)}
LETTER = rf"(?![{VULGAR}{HIGH}])[^\W\d_]"
WORDS = re.compile(rf"{LETTER}\s{LETTER}")
START = re.compile(rf"\d|[.,](?=\d)|\\[dtc]?frac|[{VULGAR}]")
DIGITS = re.compile(r"\d*")
FRAC = re.compile(rf"\\[dtc]?frac{SP}?(?:{{([^{{}}]{{1,200}})}}{SP}?{{([^{{}}]{{1,200}})}}|(\d)(\d))")
EXPONENT = re.compile(rf"[eE]([+{MINUS}]?\d++)(?![^\W_])")
RAISED = rf"{SP}?(?:\^|\*\*){SP}?[{{(]{{0,2}}([+{MINUS}]?\d++)[)}}]{{0,2}}|([⁺⁻]?[{HIGH[:10]}]++)"
POWER = re.compile(RAISED)
RAISED_NAME = re.compile(rf"[\w)}}\]]\^[{{(]{{0,2}}[{MINUS}]?$")
TIMES_TEN = re.compile(rf"{SP}?(?:[xX\u00d7*·\u22c5\u2219]|\\times|\\cdot){SP}?10(?:{RAISED})")
RATIO = re.compile(rf"{SP}?/{SP}?([{MINUS}]?)(?=[.\d])")
CHAIN_BEFORE, CHAIN_AFTER = re.compile(rf"\d{SP}?/{SP}?$"), re.compile(rf"{SP}?/{SP}?\d")
# powers of ten
UNITS = {
    "%": -2, "percent": -2, "per cent": -2, "pct": -2, "‰": -3, "per mille": -3,
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12,
}  # fmt: skip
UNIT = re.compile(rf"{SP}?({'|'.join(map(re.escape, UNITS))})(?![^\W_])", re.IGNORECASE)
SHORT_UNITS = {"k": 3, "K": 3, "M": 6, "bn": 9}
SHORT_UNIT = re.compile(r"(k|K|M|bn)(?![^\W_])")
# before a number: its sign, what makes that a minus between two numbers, what makes a detached one a sign
SIGN = re.compile(rf"([{MINUS}])({SP}*)(?:{CURRENCY}{SP}?)?[({{]?$")
OPERAND = re.compile(rf"(?:[^\W_]|[)\]}}%.°{MINUS}]|\d{SP}?[$€£¥₹₽₩₺₪₫₱฿₦¢])$")
ASSIGNED = re.compile(r"[=≈≃≅≠<>≤≥:({\[$]\s*$")
AROUND = re.compile(rf"(?:\s|{CURRENCY}|\\[()\[\]])*")
