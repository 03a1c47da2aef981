"""Answers held against others during a benchmark."""

import numpy as np

LEAST = 0.9995  # cosine


def cosines(answers: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each row with the other's."""
    return (unit(answers) * unit(expected)).sum(1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divided by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Checked:
    """Counts what was held, and stops at what is too far off."""

    def __init__(self) -> None:
        self.count = 0
        self.lowest = 1.0

    def hold(self, answers: np.ndarray, expected: np.ndarray, what: object) -> None:
        """Rows against rows."""
        found = cosines(answers, expected)
        self.count, self.lowest = self.count + len(found), min(self.lowest, float(found.min()))
        assert found.min() >= LEAST, (what, found.min())

    def facts(self) -> dict[str, float]:
        """For the results."""
        return {"answers_checked": self.count, "lowest_cosine": self.lowest}
