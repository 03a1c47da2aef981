"""256 texts of mixed lengths: 2 to 245 tokens, log-normal, 26 on average, special tokens included."""

import numpy as np
from transformers import PreTrainedTokenizerBase

SEED, TEXTS = 0, 256


def lengths(count: int = TEXTS) -> list[int]:
    """Tokens of each text."""
    drawn = np.exp(np.random.default_rng(SEED).normal(2.9, 0.75, count))
    return np.clip(drawn.astype(int) + 2, 3, 245).tolist()


def texts(tokenizer: PreTrainedTokenizerBase, count: int = TEXTS) -> list[str]:
    """Texts of whole words, of one token each."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [word for word, index in vocabulary if index > 2000 and word.isascii() and word.isalpha()]
    rng = np.random.default_rng(SEED)
    return [" ".join(rng.choice(words, length - 2)) for length in lengths(count)]
