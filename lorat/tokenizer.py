"""Text to token ids, with truncation as transformers' tokenizers do it.

The underlying `tokenizers.Tokenizer` is set up once and never changed afterwards, so any number of threads
may share it; it tokenises outside the GIL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tokenizers.pre_tokenizers import BertPreTokenizer

from lorat.errors import InputError, InputTooLongError

Text = str | tuple[str, str]
"""One text, or a pair."""
Direction = Literal["left", "right"]
_CHARACTERS_A_TOKEN = 16  # more than text has, for one pass is to be enough


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

    skip: leading tokens (a prompt's) that pooling leaves out. lost: tokens that were cut from its head.
    spans: one a token where they were asked for, None for a token that is not the text's (special, a prompt's).
    """

    ids: list[int]
    types: list[int] | None = None
    skip: int = 0
    lost: int = 0
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
        added = backend.get_added_tokens_decoder().values()
        self._words = isinstance(backend.pre_tokenizer, BertPreTokenizer) and not any(" " in t.content for t in added)

    def to_json(self) -> str:
        """Its definition, as in a `tokenizer.json`."""
        definition: str = self._backend.to_str()
        return definition

    def encode(
        self,
        texts: Sequence[Text],
        *,
        max_length: int | None = None,
        truncate: bool = True,
        direction: Direction = "right",
        lower_case: bool = False,
        spans: bool = False,
    ) -> list[Tokens]:
        """Token ids of each text, special tokens added. `spans`: with those of single texts (of a pair: None).

        Inputs over `max_length` (at most the model's own) are cut, the longest of a pair first; with
        `truncate=False` they raise InputTooLongError.
        """
        limit = min(max_length or self.max_length, self.max_length)
        if not self.pairs and any(isinstance(text, tuple) for text in texts):
            raise InputError("this base has one token type only, so it takes no pairs: send single texts")
        parts = [(text,) if isinstance(text, str) else text for text in texts]
        flat = [part.lower() if lower_case else part for pair in parts for part in pair]
        starts = truncate and direction == "right" and len(flat) == len(parts)
        encoded = iter(self._encode_starts(flat, limit) if starts else self._encode_flat(flat))
        tokens = []
        for position, pair in enumerate(parts):
            pieces = [next(encoded) for _ in pair]
            lost = self._cut(pieces, limit, truncate, direction, position)
            whole = self._backend.post_process(*pieces)
            types = list(whole.type_ids) if len(pair) == 2 else None
            places = self._spans(whole, pair[0], lower_case) if spans and types is None else None
            tokens.append(Tokens(list(whole.ids), types, lost=lost, spans=places))
        return tokens

    def _encode_starts(self, texts: list[str], limit: int) -> list[Any]:
        """As `_encode_flat`, at least `limit` tokens of each: of a long text only as much as that takes."""
        starts = [self._start(text, limit) for text in texts]
        encoded = self._encode_flat(starts)
        short = [n for n, found in enumerate(encoded) if len(found) < limit and len(starts[n]) < len(texts[n])]
        for number, whole in zip(short, self._encode_flat([texts[number] for number in short]), strict=True):
            encoded[number] = whole
        return encoded

    def _start(self, text: str, limit: int) -> str:
        """A text, or what of it comes to about so many tokens, up to a space: no token of BERT's goes beyond one."""
        end = limit * _CHARACTERS_A_TOKEN
        return text[: max(text.rfind(" ", 0, end), 0) or None] if self._words and len(text) > end else text

    def _encode_flat(self, texts: list[str], add_special_tokens: bool = False) -> list[Any]:
        try:
            encoded: list[Any] = self._backend.encode_batch(texts, add_special_tokens=add_special_tokens)
        except TypeError as error:
            raise InputError("a text is not valid Unicode (it holds half of a surrogate pair): mend it") from error
        return encoded

    def _cut(self, parts: list[Any], limit: int, truncate: bool, direction: Direction, position: int) -> int:
        """Cut one input's parts in place. Returns how many tokens the first part lost at its head."""
        special = self._backend.num_special_tokens_to_add(len(parts) == 2)
        length = special + sum(len(part) for part in parts)
        if length <= limit:
            return 0
        if not truncate:
            raise InputTooLongError(
                f"input {position} has {length} tokens, the limit is {limit}: shorten it or set truncate=true"
            )
        if limit < special:
            raise InputError(f"max_length={limit}: special tokens alone are {special}, allow more")
        before = len(parts[0])
        for part, size in zip(parts, _longest_first([len(part) for part in parts], limit - special), strict=True):
            part.truncate(size, direction=direction)
        return before - len(parts[0]) if direction == "left" else 0

    def _spans(self, encoding: Any, text: str, lower_case: bool) -> list[Span | None]:
        """A span of `text` for each token, None for the special ones around it."""
        spans: list[Span | None] = []
        columns = (encoding.ids, encoding.tokens, _offsets(encoding, text, lower_case), encoding.special_tokens_mask)
        for value, token, (start, end), special in zip(*columns, strict=True):
            word = text[start:end] if value == self._unknown else token
            spans.append(None if special else Span(start, end, word))
        return spans

    def pieces(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[Piece]]:
        """Each text's tokens, however many they are. Raises InputError for what is not Unicode."""
        encoded = self._encode_flat(list(texts), add_special_tokens)
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
        limit = min(max_length or self.max_length, self.max_length)
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

    def lengths(self, texts: Sequence[str], lower_case: bool = False) -> list[int]:
        """Tokens of each text, special ones included, before anything is cut. Raises InputError as `pieces`."""
        flat = [text.lower() for text in texts] if lower_case else list(texts)
        return [len(encoding) for encoding in self._encode_flat(flat, add_special_tokens=True)]

    def prompt_length(self, prompt: str, lower_case: bool = False) -> int:
        """Tokens that a prompt takes at the head of a text: itself and the special token before it."""
        ids = self._backend.encode(prompt.lower() if lower_case else prompt, add_special_tokens=True).ids
        return len(ids) - 1


def _pieces(encoding: Any, text: str) -> list[Piece]:
    columns = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [
        Piece(value, token, True, None, None) if special else Piece(value, text[start:stop], False, start, stop)
        for value, token, special, (start, stop) in columns
    ]


def _offsets(encoding: Any, text: str, lower_case: bool) -> list[tuple[int, int]]:
    """Each token's start and end in `text`, which was tokenised in lower case if `lower_case`."""
    offsets: list[tuple[int, int]] = encoding.offsets
    if not lower_case or len(text.lower()) == len(text):
        return offsets
    origin = [place for place, character in enumerate(text) for _ in character.lower()]  # "İ" becomes two
    origin.append(len(text))
    return [(origin[start], origin[end - 1] + 1 if end > start else origin[start]) for start, end in offsets]


def _longest_first(sizes: list[int], room: int) -> list[int]:
    """Sizes after cutting to `room` tokens in all, the longer part first (tokenizers' LongestFirst)."""
    if len(sizes) == 1:
        return [room]
    short, long = sorted(sizes)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short, long = room // 2, room // 2 + room % 2
    return [short, long] if sizes[0] <= sizes[1] else [long, short]
