"""What the labels of EMNIST's splits stand for (Cohen et al., "EMNIST: extending MNIST to handwritten
letters", 2017, tables I and II)."""

import string

_DIGITS_AND_CAPITALS = string.digits + string.ascii_uppercase
_MERGED = _DIGITS_AND_CAPITALS + "abdefghnqrt"
"""Small letters that look like their capitals share the capitals' labels."""

CHARACTERS = {
    "byclass": _DIGITS_AND_CAPITALS + string.ascii_lowercase,
    "bymerge": _MERGED,
    "balanced": _MERGED,
    "letters": "-" + string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}
"""By split, the characters by label. Labels of `letters` begin at 1, and stand for both cases."""


def characters(prefix: str) -> str | None:
    """The characters of idx files whose names begin so: `emnist-letters-`, or `emnist36-` for a subset."""
    if not prefix.lower().startswith("emnist"):
        return None
    split = prefix.lower().removeprefix("emnist").strip("-_.")
    return CHARACTERS.get(split, CHARACTERS["balanced"])
