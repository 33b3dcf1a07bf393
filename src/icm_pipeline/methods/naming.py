"""Which options a prompt names: where it says what an image is to show, nothing is left open and nothing is steered."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

APOSTROPHES = str.maketrans("\u2018\u2019\u02bc\u2010\u2011\u2012\u2013\u2212", "'''-----", "\u00ad\u200b")
GAP = r"(?:[\s_]+|-)"  # between the words of a phrase
LETTER = r"[^\W\d_]"


def named_options(prompt: str, words: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the options of which the prompt has a word: {option: [words or phrases]}, whole words in any case.

    A hyphen belongs to its word, so that "old" is not in "old-fashioned", but stands for a space within a phrase:
    "dark-skinned" is "dark skinned". "woman" is in "a woman's face". A word that is negated is named all the same:
    "without glasses" has "glasses".

    Example:
        named_options("a face of a male nurse", {"woman": ["female", "woman"], "man": ["male", "man"]})  # {"man"}
    """
    text = _plain(prompt)
    return frozenset(option for option, listed in words.items() if listed and _pattern(tuple(listed)).search(text))


@lru_cache(maxsize=256)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    phrases = [GAP.join(map(re.escape, re.split(r"[\s_-]+", _plain(word).strip(" _-")))) for word in words]
    either = "|".join(sorted(phrases, key=len, reverse=True))
    return re.compile(rf"(?<![^\W_])(?<!{LETTER}-)(?:{either})(?:'s|')?(?![^\W_])(?!-[^\W_])")


def _plain(text: str) -> str:
    """Return the text in one case, with one kind of apostrophe and of hyphen, and letters joined with their marks."""
    return unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).casefold()
