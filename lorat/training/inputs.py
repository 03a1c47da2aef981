"""From rows to what a model is trained on: token ids, padded batches, a tag for each word's first token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lorat.base import Base
from lorat.errors import ConfigError
from lorat.tokenizer import Span, Tokens
from lorat.training.splits import LabelledTexts, Split, TaggedWords, TextPairs, TrainingData

IGNORED = -100
"""The label of a token that has none, as torch's cross entropy leaves out."""
Item = dict[str, Any]
"""input_ids, and labels."""


def encode(base: Base, texts: Sequence[str], *, spans: bool = False) -> list[Tokens]:
    """Tokens as the service makes them for a task with a head."""
    return base.tokenizer_of(base.recipe).encode(texts, max_length=base.recipe.max_length, spans=spans)


def texts_of(split: Split) -> list[str]:
    """The text of each row: words with a space between, of a pair the first."""
    if isinstance(split, TaggedWords):
        return [" ".join(words) for words in split.words]
    return list(split.texts if isinstance(split, LabelledTexts) else split.first)


def lengths_of(base: Base, split: Split) -> list[int]:
    """Tokens that are read of each row, of a pair those of both texts."""
    lengths = [len(tokens) for tokens in encode(base, texts_of(split))]
    if not isinstance(split, TextPairs):
        return lengths
    return [length + len(tokens) for length, tokens in zip(lengths, encode(base, split.second), strict=True)]


def cut_texts(base: Base, split: Split) -> str:
    """A sentence for people where texts to train on are longer than what is read of them, else nothing."""
    texts = [*texts_of(split), *(split.second if isinstance(split, TextPairs) else ())]
    most = base.tokenizer.limit(base.recipe.max_length)
    cut = sum(length > most for length in base.tokenizer_of(base.recipe).lengths(texts))
    if not cut:
        return ""
    return f"{cut:,} of {len(texts):,} texts to train on are longer than {most} tokens: what comes after is not read."


def labelled_items(base: Base, rows: LabelledTexts, labels: int | None) -> list[Item]:
    """One item a text. labels: how many there are where several may hold (then a row of 0 and 1), else None."""
    return [
        {"input_ids": tokens.ids, "labels": _target(own, labels)}
        for tokens, own in zip(encode(base, rows.texts), rows.labels, strict=True)
    ]


def _target(own: Sequence[int], labels: int | None) -> int | list[float]:
    return own[0] if labels is None else [float(label in own) for label in range(labels)]


def tagged_items(base: Base, rows: TaggedWords) -> list[Item]:
    """One item a sentence: a word's tag stands at its first token, IGNORED elsewhere."""
    items = []
    for tokens, places, tags in zip(*encode_words(base, rows.words), rows.tags, strict=True):
        targets = [IGNORED] * len(tokens)
        for place, tag in zip(places, tags, strict=True):
            if place is not None:
                targets[place] = tag
        items.append({"input_ids": tokens.ids, "labels": targets})
    return items


def encode_words(base: Base, sentences: Sequence[Sequence[str]]) -> tuple[list[Tokens], list[list[int | None]]]:
    """Sentences of words with a space between, and where each word's first token is (None: cut off, or no token)."""
    tokens = encode(base, [" ".join(words) for words in sentences], spans=True)
    return tokens, [first_inside(words, one.spans or ()) for words, one in zip(sentences, tokens, strict=True)]


def check_words(base: Base, data: TrainingData) -> None:
    """Raise ConfigError where train or dev has no word that becomes tokens, or train's are all of one tag."""
    for name, split in (("train", data.train), ("dev", data.dev)):
        if isinstance(split, TaggedWords):
            tags = {target for item in tagged_items(base, split) for target in item["labels"]} - {IGNORED}
            if not tags:
                raise ConfigError(f"no word of {name} is read by the base's tokenizer: give others")
            if name == "train" and len(tags) == 1:
                raise ConfigError(f"all words of train have the tag {data.labels[tags.pop()]!r}: add rows with others")


def first_inside(words: Sequence[str], spans: Sequence[Span | None]) -> list[int | None]:
    """Of each word, words with a space between, the place of the first span that begins inside it; None for none."""
    starts: dict[int, int] = {}
    for place, span in enumerate(spans):
        if span is not None and span.end > span.start:
            starts.setdefault(span.start, place)
    ordered = sorted(starts)
    found, start = [], 0
    for word in words:
        inside = next((begin for begin in ordered if start <= begin < start + len(word)), None)
        found.append(None if inside is None else starts[inside])
        start += len(word) + 1
    return found


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Pad to the longest of the batch. Padding is masked, so its id does not matter."""
    ids = [torch.tensor(item["input_ids"]) for item in items]
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
    if "labels" not in items[0]:
        return batch
    labels = [item["labels"] for item in items]
    if isinstance(labels[0], list) and len(labels[0]) == len(items[0]["input_ids"]) and isinstance(labels[0][0], int):
        padded = pad_sequence([torch.tensor(row) for row in labels], batch_first=True, padding_value=IGNORED)
        return batch | {"labels": padded}
    return batch | {"labels": torch.tensor(labels)}
