"""Words as briefs count and compare them: pure Python, for the product and the corpus alike.

Scripts that write no spaces count by the character, as word processors do.
"""

import re
import unicodedata

_UNSPACED = "\u2e80-\u2fff\u3005-\u3007\u3040-\u9fff\uac00-\ud7af\uf900-\ufaff"
_UNSPACED_WORD = re.compile(rf"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_FULL_WIDTH_MARK = re.compile("[\u3000-\u3004\u3008-\u303f\uff00-\uff0f\uff1a-\uff20]")


def count_words(text: str) -> int:
    """Words between spaces, and every character of an unspaced script; full-width marks count nothing."""
    spaced = _FULL_WIDTH_MARK.sub(" ", _UNSPACED_WORD.sub(" ", text))
    return len(_UNSPACED_WORD.findall(text)) + len(spaced.split())


def normalised(text: str) -> str:
    """Words in lower case with single spaces around them, so that phrases match whole words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return f" {' '.join(_WORD.findall(folded))} "


def says(text: str, phrase: str) -> bool:
    """Whether the text holds the phrase: whole words, whatever case and marks.

    "14 May" does not say "4 May". A phrase without words is always said.
    """
    words = normalised(phrase)
    return not words.strip() or words in normalised(text)
