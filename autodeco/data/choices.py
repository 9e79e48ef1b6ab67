"""The letter of a choice that an answer names, among the choices that a problem has."""

import re
from collections.abc import Iterable

_LETTER = r"(?<![^\W_])(?P<letter>[A-Za-z])(?![^\W_]|['\u2019])"
_MARKS = r"[\s*_`\"'\u201c\u2018\[({$:]{0,8}"
_NOUN = r"(?:the\s+)?(?:answer|option|choice|letter|statement)?"
_IS = r"(?<!\w)(?:is|are|was|be|being|=|:|\u2192|->|-)"
_DECLARED = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"\banswer\b[^.\n]{{0,60}}?{_IS}{_MARKS}{_NOUN}{_MARKS}{_LETTER}",
        rf"\banswer{_MARKS}{_LETTER}",
        rf"\b(?:correct|right|best)\s+(?:option|choice|letter|one|statement)\s*{_IS}{_MARKS}{_NOUN}{_MARKS}{_LETTER}",
        rf"\\boxed{{\s*(?:\\(?:text|textbf|mathrm|mathbf){{)?\s*\(?{_LETTER}",
        rf"{_LETTER}[)\]}}*_`.]{{0,4}}\s+is\s+(?:therefore\s+|thus\s+|clearly\s+)?(?:the\s+)?(?:correct|right|best)\b",
        rf"\b(?:choose|chose|select|pick|opt\s+for|go\s+with|goes\s+with){_MARKS}{_NOUN}{_MARKS}{_LETTER}",
        rf"^[^\w\n]*(?:(?:option|choice)\s+)?{_LETTER}[^\w\n]*$",  # a line of its own
    )
]
_MARKED = [re.compile(rf"[(\[]\s*{_LETTER}\s*[)\]]"), re.compile(rf"(?P<sign>\*\*|__|[*_`]){_LETTER}(?P=sign)")]
_OPTION = [re.compile(rf"(?:(?<=\n)|\A)[ \t>*_#-]*{_LETTER}[.):]")]
_ALONE = [re.compile(_LETTER)]
_OTHER = re.compile(
    r"[)\]}*_`.]{0,4}\s*(?:/|&|or|and|,(?=[^\w\n]*[A-Z][)\]*_`]*\s*(?:[,.]|\Z|or\b|and\b)))\s*[(\[*_`]{0,4}[A-Z]"
    r"(?![^\W_]|['\u2019]|[)\]*_`]*\s+(?:is|was|isn|has|can|does|would)\b)"
)
_ASKED = re.compile(r"[)\]}*_`\"]{0,4}\s*\?")
# What may stand behind a letter that names a choice: "A is right". Any other word makes it the article or the pronoun.
_VERBS = (
    "is|was|are|were|be|because|since|as|and|or|but|would|will|can|could|must|should|seems|looks|has|gives|makes|means|"
    "says|states|matches|fits|works|describes|so|for|with|by|in|on|not|also|then|which|that|over|than|correctly|does"
)
_WORD_BEHIND = {
    "A": re.compile(rf"\s+[\"*_`\u201c]{{0,3}}(?!(?:{_VERBS})\b)[^\W\d_]{{2,}}"),
    "I": re.compile(r",?\s+(?!(?:is|because|since|and|or|are)\b)[^\W\d_]{2,}"),
}
_NOT_BEFORE = re.compile(
    r"(?:\bnot|n['\u2019]t(?:\s+be)?|\bneither|\bnor|\brather\s+than|\binstead\s+of|\bexcept)\W{0,4}"
    r"(?:the\s+)?(?:option|choice|answer)?\W{0,4}\Z",
    re.IGNORECASE,
)
_NOT_BEHIND = re.compile(
    r"[)\]}*_`.]{0,4}\s+(?:is|are|was)(?:n['\u2019]t|\s+(?:not|wrong|incorrect|false))\b", re.IGNORECASE
)
_LISTED = re.compile(r"(?:(?<=\s)|(?<=\()|\A)[*_]{0,2}(?P<letter>[A-Z])[*_]{0,2}[.):]")


def named_choice(text: str, choices: Iterable[str] = ()) -> str | None:
    """Return the letter that ``text`` chooses of ``choices`` (none: any letter), None if it names none or several.

    What is declared comes first: "the answer is B", "\\boxed{B}", "B is correct", a line that is a letter. Then the
    last of "(B)", "**B**" and a line that begins with "B.", unless more than two letters are so marked: that is a list.
    Then the last letter alone that is not ruled out, and neither the pronoun I nor the article A.
    """
    allowed = set(choices)
    declared = _found(text, _DECLARED, allowed, any_case=True)
    if declared := [match for match in declared if not _is_ruled_out(text, match)]:
        last = declared[-1]
        return None if _OTHER.match(text, last.end("letter")) else last["letter"].upper()
    marked, lines = _found(text, _MARKED, allowed, any_case=True), _found(text, _OPTION, allowed)
    if len({match["letter"] for match in lines}) == 1:
        marked = sorted(marked + lines, key=lambda match: match.start("letter"))
    if 1 <= len({match["letter"].upper() for match in marked}) <= 2:
        return _last(text, marked)
    alone = _found(text, _ALONE, allowed)
    if not allowed:
        alone = [match for match in alone if match["letter"] != "I"]
    return _last(text, alone)


def _last(text: str, found: list[re.Match]) -> str | None:
    """The last letter that is not ruled out; None if it is one of two: "A or B"."""
    kept = [match for match in found if not _is_ruled_out(text, match)]
    if not kept:
        return None
    for before in kept[:-1]:
        other = _OTHER.match(text, before.end("letter"))
        if other and other.end() == kept[-1].end("letter"):
            return None
    return kept[-1]["letter"].upper()


def _is_ruled_out(text: str, match: re.Match) -> bool:
    start, end = match.span("letter")
    return bool(_NOT_BEFORE.search(text, max(0, start - 40), start) or _NOT_BEHIND.match(text, end))


def choices_of(problem: dict) -> list[str]:
    """Return the letters of a problem's choices: of its field ``choices`` or ``options``, else those its prompt lists
    from A on; empty if neither says."""
    for name in ("choices", "options"):
        choices = problem.get(name)
        if isinstance(choices, dict):
            choices = choices.get("label", list(choices))
            return [str(label).strip("(). ").upper() for label in choices]
        if isinstance(choices, list) and 0 < len(choices) <= 26:
            return [chr(ord("A") + index) for index in range(len(choices))]
    prompt = problem.get("prompt", "")
    if isinstance(prompt, list):
        prompt = "\n".join(str(message.get("content")) for message in prompt if isinstance(message, dict))
    listed = {match["letter"] for match in _LISTED.finditer(str(prompt))}
    letters = [chr(ord("A") + index) for index in range(26)]
    missing = next((index for index, letter in enumerate(letters) if letter not in listed), 26)
    return letters[:missing] if missing >= 2 else []


def _found(text: str, patterns: list[re.Pattern], allowed: set[str], any_case: bool = False) -> list[re.Match]:
    """The matches in order of their letters, of letters that are allowed and no words of a sentence."""
    found = [match for pattern in patterns for match in pattern.finditer(text) if _is_choice(match, allowed, any_case)]
    return sorted(found, key=lambda match: match.start("letter"))


def _is_choice(match: re.Match, allowed: set[str], any_case: bool) -> bool:
    letter, behind = match["letter"].upper(), match.end("letter")
    if allowed and letter not in allowed:
        return False
    if match["letter"].islower():  # "(b)", "answer: b", never a word of one letter
        return any_case and not re.compile(r"\s+[^\W_]").match(match.string, behind)
    word = _WORD_BEHIND.get(letter)
    return not (word and word.match(match.string, behind)) and not _ASKED.match(match.string, behind)
