"""Labelled texts to learn embeddings from: those that share a label belong together."""

import random
from collections import Counter

from lorat.errors import ConfigError
from lorat.training.splits import LabelledTexts, TrainingData


def check_similar(data: TrainingData) -> None:
    """Raise ConfigError for a split of labelled texts where none belongs with another."""
    for name, split in (("train", data.train), ("dev", data.dev), ("test", data.test)):
        if isinstance(split, LabelledTexts) and not max(Counter(split.labels).values()) > 1:
            held = f", with {name} held out from train" if name == "dev" and data.held_out else ""
            raise ConfigError(
                f"no label of {name} has two texts{held}: similar texts are those that share a label, add rows"
            )


def similar_pairs(rows: LabelledTexts, seed: int) -> list[tuple[str, str, int]]:
    """(anchor, positive, label): each text in one pair with another of its label, drawn by a seed.

    The last of an odd number of texts is paired with one that is in a pair already.
    Raises ConfigError where no label has two texts, and for texts that have not one label each.
    """
    if any(len(labels) != 1 for labels in rows.labels):
        raise ConfigError("similar texts are those that share their label: give each text one label")
    by_label: dict[int, list[str]] = {}
    for text, (label,) in zip(rows.texts, rows.labels, strict=True):
        by_label.setdefault(label, []).append(text)
    draw = random.Random(seed)
    pairs = []
    for label, texts in sorted(by_label.items()):
        draw.shuffle(texts)
        if len(texts) > 1:
            ends = [*range(1, len(texts), 2), *([len(texts) - 1] if len(texts) % 2 else [])]
            pairs += [(texts[place], texts[place - 1], label) for place in ends]
    if not pairs:
        raise ConfigError("no label of train has two texts: similar texts are those that share a label")
    return pairs
