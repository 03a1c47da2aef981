"""256 texts of mixed lengths: 2 to 245 tokens, log-normal, 26 on average, special tokens included."""

from statistics import NormalDist

import numpy as np
from transformers import PreTrainedTokenizerBase

SEED, TEXTS = 0, 256
_SHORTEST, _LONGEST = 2, 245
_LOG_LENGTHS = NormalDist(2.825, 0.93)


def lengths(count: int = TEXTS) -> list[int]:
    """Tokens of each text: the distribution's own quantiles, shuffled, so that no draw favours anyone."""
    exact = [np.exp(_LOG_LENGTHS.inv_cdf((place + 0.5) / count)) for place in range(count)]
    sizes = np.clip(np.rint(exact), _SHORTEST, _LONGEST).astype(int)
    return np.random.default_rng(SEED).permutation(sizes).tolist()


def texts(tokenizer: PreTrainedTokenizerBase, count: int = TEXTS) -> list[str]:
    """Texts of whole words, of one token each."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [word for word, index in vocabulary if index > 2000 and word.isascii() and word.isalpha()]
    rng = np.random.default_rng(SEED)
    return [" ".join(rng.choice(words, length - 2)) for length in lengths(count)]
