"""The ends of long texts, with the tokens that they have in the whole text.

BERT's normaliser, and what makes lower case, look at one character at a time; BERT's words end at spaces, punctuation
and ideographs, and each word becomes tokens by itself. So a cut changes the word that it goes through, and an added
token ("[MASK]") that it goes through falls into fewer words than it has characters. All other words are what they are
without the cut.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Encoding
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as Steps
from tokenizers.pre_tokenizers import BertPreTokenizer

from lorat.errors import InputError

Direction = Literal["left", "right"]
"""Where texts are cut: "right" leaves the head, "left" the tail."""
_CHARACTERS_A_TOKEN = 8  # more than most texts have, for one look is to be enough
_GROWTH = 4  # of what is looked at, where it was not


@dataclass(frozen=True)
class End:
    """What was looked at of a text.

    encoding: its tokens. start: how many characters of the text come before. whole: whether it is the whole text.
    """

    text: str
    encoding: Any
    start: int
    whole: bool

    def __len__(self) -> int:
        return len(self.encoding)

    def cut(self, size: int, direction: Direction) -> Any:
        """An encoding of `size` of its tokens; this one stays as it is, for another input may have the same text."""
        if size == len(self.encoding):
            return self.encoding
        copy = Encoding.merge([self.encoding], growing_offsets=False)
        copy.truncate(size, direction=direction)
        return copy


class Ends:
    """Looks at as little of texts as will do. Of a tokenizer that is not built as BERT's it looks at all."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        added = _added(backend)
        self._unsure = max(map(len, added), default=1)  # words beside a cut
        self._apart = (
            isinstance(backend.pre_tokenizer, BertPreTokenizer)
            and all(isinstance(step, Lowercase | BertNormalizer) for step in steps_of(backend.normalizer))
            and not any(character.isspace() for content in added for character in content)
            and not _overlap(added)
        )

    def find(self, texts: Iterable[str], count: int, direction: Direction) -> dict[str, End]:
        """Of each text the head or tail, of at least `count` tokens, or the whole. Raises as `encode_all`."""
        found: dict[str, End] = {}
        left, size = list(dict.fromkeys(texts)), count * _CHARACTERS_A_TOKEN
        while left:
            ends = self._look(left, size, direction) if self._apart else self._look_at_all(left)
            found |= {end.text: end for end in ends if end.whole or len(end) >= count}
            left = [text for text in left if text not in found]
            size *= _GROWTH
        return found

    def find_whole(self, texts: Iterable[str]) -> dict[str, End]:
        """All of each text. Raises as `encode_all`."""
        return {end.text: end for end in self._look_at_all(list(dict.fromkeys(texts)))}

    def _look_at_all(self, texts: Sequence[str]) -> list[End]:
        encoded = encode_all(self._backend, texts)
        return [End(text, encoding, 0, True) for text, encoding in zip(texts, encoded, strict=True)]

    def _look(self, texts: Sequence[str], size: int, direction: Direction) -> list[End]:
        """What is sure of the `size` characters at the end of each text."""
        starts = [max(len(text) - size, 0) if direction == "left" else 0 for text in texts]
        parts = [text[start : start + size] for text, start in zip(texts, starts, strict=True)]
        ends = []
        for text, part, start, encoding in zip(texts, parts, starts, encode_all(self._backend, parts), strict=True):
            whole = len(part) == len(text)
            if not whole:
                encoding.truncate(self._sure(encoding, direction), direction=direction)
            ends.append(End(text, encoding, start, whole))
        return ends

    def _sure(self, encoding: Any, direction: Direction) -> int:
        """How many tokens are not beside the cut."""
        words = encoding.word_ids[:: -1 if direction == "left" else 1]
        begins = [place for place, word in enumerate(words) if not place or word != words[place - 1]]
        return begins[-self._unsure] if len(begins) >= self._unsure else 0


def encode_all(backend: Any, texts: Sequence[str], add_special_tokens: bool = False) -> list[Any]:
    """Encodings of whole texts. Raises InputError for one that is not Unicode."""
    try:
        encoded: list[Any] = backend.encode_batch(texts, add_special_tokens=add_special_tokens)
    except TypeError as error:
        raise InputError("a text is not valid Unicode (it holds half of a surrogate pair): mend it") from error
    return encoded


def steps_of(normalizer: Any) -> list[Any]:
    """The normalisers that a tokenizer's comes to, one after another."""
    if isinstance(normalizer, Steps):
        return [normalizer[place] for place in range(len(normalizer))]
    return [normalizer] if normalizer else []


def _added(backend: Any) -> list[str]:
    """What texts are searched for before they are cut into words."""
    added = backend.get_added_tokens_decoder().values()
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    return [content for token in added for content in {token.content, normalize(token.content)}]


def _overlap(added: Sequence[str]) -> bool:
    """Whether one may begin inside another: a cut through one could then change all that follow."""
    heads = {content[:size] for content in added for size in range(1, len(content))}
    return any(content[size:] in heads for content in added for size in range(1, len(content)))
