"""Token classification's answers: from logits and spans to tokens with labels, or to entities.

Entities are those of transformers' token classification pipeline with `aggregation_strategy="simple"`. Pure: it
knows no tokenizer and no model.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch

from app.engine.jobs import Array
from lorat.adapter import OUTSIDE, Head
from lorat.tokenizer import Span


class Labelled(NamedTuple):
    """A token of the text with its best label."""

    label: str
    score: float
    span: Span


def entities(
    text: str,
    logits: Array,
    spans: Sequence[Span | None],
    head: Head,
    aggregate: bool,
    ignored: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Entries of one text, in its order: its entities, or without `aggregate` each of its tokens.

    logits: (tokens, labels) float32. spans: one a token, None for a token that is not the text's. ignored: labels
    that are left out; None leaves out what is outside of any entity, and of single tokens none.
    """
    tokens = label_tokens(logits, spans, head)
    if aggregate:
        return group(text, tokens, (OUTSIDE,) if ignored is None else ignored)
    return [_entry("entity", token) for token in tokens if token.label not in (ignored or ())]


def label_tokens(logits: Array, spans: Sequence[Span | None], head: Head) -> list[Labelled]:
    """The text's tokens, each with its best label."""
    scores, best = head.scores(torch.from_numpy(logits)).max(-1)
    rows = zip(best.tolist(), scores.tolist(), spans, strict=True)
    return [Labelled(head.labels[index], score, span) for index, score, span in rows if span is not None]


def group(text: str, tokens: Sequence[Labelled], ignored: Collection[str] = (OUTSIDE,)) -> list[dict[str, Any]]:
    """Runs of neighbouring tokens of one entity, without the ignored ones. Scores are means."""
    runs: list[list[Labelled]] = []
    for token in tokens:
        if runs and _continues(runs[-1][-1].label, token.label):
            runs[-1].append(token)
        else:
            runs.append([token])
    joined = [_join(text, run) for run in runs]
    return [_entry("entity_group", entity) for entity in joined if entity.label not in ignored]


def _continues(previous: str, label: str) -> bool:
    """Whether a token is of the entity of the token before it: of its tag, and no `B-`, which begins another."""
    return not label.startswith("B-") and _tag(label) == _tag(previous)


def _tag(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _join(text: str, run: Sequence[Labelled]) -> Labelled:
    start, end = run[0].span.start, run[-1].span.end
    name = run[0].label.split("-", 1)[-1]  # any prefix, as the pipeline does: `S-PER` is named `PER` too
    return Labelled(name, sum(token.score for token in run) / len(run), Span(start, end, text[start:end]))


def _entry(key: str, found: Labelled) -> dict[str, Any]:
    label, score, (start, end, word) = found
    return {key: label, "score": score, "word": word, "start": start, "end": end}
