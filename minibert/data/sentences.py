"""Where a sentence ends: a rule, for text that does not say it line by line."""

from __future__ import annotations

import re

# A mark that ends a sentence, what closes behind it, and a blank; or a full-width mark: no blank
# follows those. (।॥: Devanagari; ؟: Arabic; ۔: Urdu.)
_END = re.compile(r"""[.!?…।॥؟۔]+["'”’»)\]]*\s+|[。！？]+[」』”’）]*\s*""")
_ALWAYS = "。！？।॥؟۔"  # they mean nothing else, and their scripts have no capital letters
_OPENING = "\"'“‘«([¿¡—-"
_WORD = re.compile(r"[^\W\d_]+$")

# Words whose point does not end a sentence. (A single capital is an initial.)
ABBREVIATIONS = frozenset(
    """
    mr mrs ms messrs mme mlle dr prof rev hon st sr jr esq capt col gen lt lieut sgt maj
    gov sen rep pres vs etc viz cf al eg ie no nos vol fig pp ed eds inc ltd co corp
    jan feb mar apr jun jul aug sep sept oct nov dec
    """.split()  # noqa: SIM905  a list of that many would fill a screen
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a paragraph, stripped, none empty.

    One ends at . ! ? … with its closing quotes, before a blank and anything but a small letter; in
    a paragraph without any capital letter, before a small one too. A point that belongs to an
    abbreviation or an initial ends none. Whatever follows, one ends at 。！？, and before a blank
    at । ॥ ؟ ۔ too. Nothing is lost but blanks at the seams.
    """
    sentences, start = [], 0
    small = text.islower()  # there are letters that could be capitals, and none is
    for end in _END.finditer(text):
        if _is_end(text, end, small):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_end(text: str, mark: re.Match[str], small: bool) -> bool:
    """Whether a sentence ends there; small: a small letter behind it says nothing."""
    if mark[0][0] in _ALWAYS:
        return True
    after = text[mark.end() : mark.end() + 4].lstrip(_OPENING)
    if after[:1].islower() and not small:
        return False
    if not mark[0].rstrip().endswith(".") or mark[0].startswith(".."):
        return True
    word = _WORD.search(text, max(0, mark.start() - 20), mark.start())
    if word is None:
        return True
    capital = word[0].isupper() or (small and word[0].islower())
    initial = len(word[0]) == 1 and capital and word[0] not in "Ii"
    return not initial and word[0].lower() not in ABBREVIATIONS
