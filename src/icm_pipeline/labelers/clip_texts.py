"""The texts that a CLIP is asked: they must fit into its context, and those of two options must be told apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from icm_pipeline.labelers.base import Questions

CONTEXT_LENGTH = 77  # of an architecture that names none, as in open_clip
SPECIAL_TOKENS = 3  # at most: begin, end and class


def cut_texts(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Return the texts that do not fit into the tokenizer's context, which it cuts in silence."""
    length = tokenizer.context_length
    rows, longer = (tokenizer(list(texts), context_length=tokens).tolist() for tokens in (length, 2 * length))
    return [text for text, row, more in zip(texts, rows, longer, strict=True) if len(Counter(more) - Counter(row)) > 1]


def check_texts(tokenizer: Any, named: str, questions: Questions) -> None:
    """Raise ValueError for texts that do not fit and for those of two options that are the same tokens."""
    texts = list(dict.fromkeys(text for options in questions.values() for texts in options.values() for text in texts))
    if not texts:
        return
    if cut := cut_texts(tokenizer, texts):
        raise ValueError(
            f"{named} reads texts of {tokenizer.context_length} tokens at most; longer is {cut[0]!r}. Shorten it "
            "in the attribute, or choose a judge that reads more."
        )
    tokens = dict(zip(texts, map(tuple, tokenizer(texts).tolist()), strict=True))
    for attribute, first, second in _pairs(questions):
        if tokens[first] == tokens[second]:
            raise same_texts(named, attribute, first, second)


def same_texts(named: str, attribute: str, first: str, second: str) -> ValueError:
    what = f"{first!r} and {second!r}" if first != second else f"{first!r}"
    return ValueError(
        f"{named} cannot tell options of {attribute} apart: {what} of two of them is the same text to it."
    )


def need_tokens(described: Mapping[str, Any], questions: Questions) -> bool:
    """Say whether only the architecture's tokenizer can tell that texts fit and differ: a token is a byte or more."""
    text = described.get("text_cfg", {})
    if "hf_tokenizer_name" in text:
        return True
    room = text.get("context_length", CONTEXT_LENGTH) - SPECIAL_TOKENS
    asked = (text for options in questions.values() for texts in options.values() for text in texts)
    alike = any(first.lower() == second.lower() for _, first, second in _pairs(questions))
    return alike or any(len(text.encode()) > room for text in asked)


def _pairs(questions: Questions) -> Iterator[tuple[str, str, str]]:
    """Yield every attribute with a text of one option and a text of another."""
    for attribute, options in questions.items():
        for these, those in combinations(options.values(), 2):
            yield from ((attribute, first, second) for first in these for second in those)
