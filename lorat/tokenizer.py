"""Text to token ids, with truncation as transformers' tokenizers do it.

The underlying `tokenizers.Tokenizer` is set up once and never changed afterwards, so any number of threads
may share it; it tokenises outside the GIL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tokenizers import normalizers

from lorat.ends import Direction, End, Ends, encode_all, steps_of
from lorat.errors import InputError, InputTooLongError

Text = str | tuple[str, str]
"""One text, or a pair."""
_COMPARED = 1 << 14  # characters of a text whose tokens are counted to see which of a pair is longer


class Span(NamedTuple):
    """Where a token stands in its text, in characters, and its own text.

    `word` is as the tokenizer writes it (`##ing`), or as the text does where the vocabulary lacks it.
    """

    start: int
    end: int
    word: str


class Piece(NamedTuple):
    """A token for people to read, and where it stands in its text, in characters (None: special)."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class Tokens:
    """One input, ready to run.

    skip: leading tokens (a prompt's) that pooling leaves out.
    spans: one a token where they were asked for, None for a token that is not the text's (special, a prompt's).
    """

    ids: list[int]
    types: list[int] | None = None
    skip: int = 0
    spans: list[Span | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """`max_length`: tokens that the model takes, special ones included. `vocabulary`: the model's ids.

    pairs: whether the model tells the two texts of a pair apart (it has two token types). unknown: the id
    that stands for whatever the vocabulary lacks.
    """

    def __init__(
        self, backend: Any, *, max_length: int, vocabulary: int, pairs: bool = True, unknown: int | None = None
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self.max_length = max_length
        self.vocabulary = vocabulary
        self.pairs = pairs
        self._unknown = unknown
        self._ends = Ends(backend)

    def to_json(self) -> str:
        """Its definition, as in a `tokenizer.json`."""
        definition: str = self._backend.to_str()
        return definition

    @cached_property
    def lower_cased(self) -> "Tokenizer":
        """This one behind what makes all but special tokens lower case: sentence-transformers' `do_lower_case`."""
        steps = steps_of(self._backend.normalizer)
        if any(isinstance(step, normalizers.Lowercase) for step in steps):
            return self
        backend = type(self._backend).from_str(self._backend.to_str())
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
        return Tokenizer(
            backend,
            max_length=self.max_length,
            vocabulary=self.vocabulary,
            pairs=self.pairs,
            unknown=self._unknown,
        )

    def limit(self, max_length: int | None) -> int:
        """Tokens of an input that are read where `max_length` are asked for: the model's own at most."""
        return min(max_length or self.max_length, self.max_length)

    def encode(
        self,
        texts: Sequence[Text],
        *,
        max_length: int | None = None,
        truncate: bool = True,
        direction: Direction = "right",
        spans: bool = False,
        skip: int = 0,
        first: int = 0,
    ) -> list[Tokens]:
        """Token ids of each text, special tokens added. `spans`: with those of single texts (of a pair: None).

        Inputs over `max_length` (at most the model's own) are cut, the longest of a pair first; with
        `truncate=False` they raise InputTooLongError, which counts from `first`. `skip`: as `Tokens` has it, before
        anything is cut. Of texts that are cut little more is looked at than stays, and of equal ones only one.
        """
        limit = self.limit(max_length)
        if not self.pairs and any(isinstance(text, tuple) for text in texts):
            raise InputError("this base has one token type only, so it takes no pairs: send single texts")
        parts = [(text,) if isinstance(text, str) else text for text in texts]
        read = [part for pair in parts for part in pair]
        found = self._ends.find(read, limit, direction) if truncate else self._ends.find_whole(read)
        tokens = []
        for position, pair in enumerate(parts, first):
            ends = [found[part] for part in pair]
            sizes = self._sizes(ends, limit, truncate, position)
            whole = self._backend.post_process(
                *(end.cut(size, direction) for end, size in zip(ends, sizes, strict=True))
            )
            types = list(whole.type_ids) if len(pair) == 2 else None
            places = self._spans(whole, ends[0].start, pair[0]) if spans and types is None else None
            tokens.append(Tokens(list(whole.ids), types, self._left(skip, ends[0], sizes[0], direction), places))
        return tokens

    def _sizes(self, ends: Sequence[End], limit: int, truncate: bool, position: int) -> list[int]:
        """How many tokens stay of each part of one input."""
        special = self._backend.num_special_tokens_to_add(len(ends) == 2)
        sizes = list(map(len, ends))
        length = special + sum(sizes)
        if length <= limit:
            return sizes
        if not truncate:
            raise InputTooLongError(
                f"input {position} has {length} tokens, the limit is {limit}: shorten it or set truncate=true"
            )
        if limit < special:
            raise InputError(f"max_length={limit}: special tokens alone are {special}, allow more")
        if len(ends) == 2 and min(sizes) >= limit and not all(end.whole for end in ends):
            sizes = [limit + self._longer(*ends), limit]
        return _longest_first(sizes, limit - special)

    def _longer(self, one: End, other: End) -> bool:
        """Whether one text has more tokens than the other, which gets it the odd one; of very long ones, characters."""
        if max(len(one.text), len(other.text)) > _COMPARED:
            return len(one.text) > len(other.text)
        whole = self._ends.find_whole([one.text, other.text])
        return len(whole[one.text]) > len(whole[other.text])

    def _left(self, skip: int, end: End, size: int, direction: Direction) -> int:
        """How many of the first `skip` tokens of an input are there when `size` of its first part's are."""
        if not skip or direction == "right":
            return skip
        whole = end if end.whole else self._ends.find([end.text], size + skip, "right")[end.text]
        return max(skip - (len(whole) - size), 1)

    def _spans(self, encoding: Any, start: int, text: str) -> list[Span | None]:
        """A span of `text` for each token, None for the special ones around it. start: of the encoded part."""
        spans: list[Span | None] = []
        offsets = [(start + begin, start + end) for begin, end in encoding.offsets]
        columns = (encoding.ids, encoding.tokens, offsets, encoding.special_tokens_mask)
        for value, token, (start, end), special in zip(*columns, strict=True):
            word = text[start:end] if value == self._unknown else token
            spans.append(None if special else Span(start, end, word))
        return spans

    def pieces(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[Piece]]:
        """Each text's tokens, however many they are. Raises InputError for what is not Unicode."""
        encoded = encode_all(self._backend, list(texts), add_special_tokens)
        return [_pieces(encoding, text) for encoding, text in zip(encoded, texts, strict=True)]

    def check_ids(
        self,
        ids: Sequence[int],
        *,
        max_length: int | None = None,
        truncate: bool = True,
        direction: Direction = "right",
    ) -> Tokens:
        """Token ids used as they are. Raises InputError for none, or for one outside the vocabulary."""
        limit = self.limit(max_length)
        if not ids:
            raise InputError("a list of token ids is empty: give at least one id")
        wrong = next((value for value in ids if not 0 <= value < self.vocabulary), None)
        if wrong is not None:
            raise InputError(
                f"token id {wrong} is outside the vocabulary of {self.vocabulary}: send ids of this base's tokenizer, "
                "or texts (langchain-openai: check_embedding_ctx_length=False)"
            )
        if len(ids) > limit and not truncate:
            raise InputTooLongError(f"{len(ids)} token ids, the limit is {limit}: send fewer or set truncate=true")
        return Tokens(list(ids[:limit] if direction == "right" else ids[-limit:]))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included, before anything is cut. Raises InputError as `pieces`."""
        return [len(encoding) for encoding in encode_all(self._backend, list(texts), add_special_tokens=True)]

    def prompt_length(self, prompt: str) -> int:
        """Tokens that a prompt takes at the head of a text: itself and the special token before it."""
        return len(self._backend.encode(prompt, add_special_tokens=True).ids) - 1


def _pieces(encoding: Any, text: str) -> list[Piece]:
    columns = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [
        Piece(value, token, True, None, None) if special else Piece(value, text[start:stop], False, start, stop)
        for value, token, special, (start, stop) in columns
    ]


def _longest_first(sizes: list[int], room: int) -> list[int]:
    """Sizes after cutting to `room` tokens in all, the longer part first (tokenizers' LongestFirst)."""
    if len(sizes) == 1:
        return [room]
    short, long = sorted(sizes)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short, long = room // 2, room // 2 + room % 2
    return [short, long] if sizes[0] <= sizes[1] else [long, short]
