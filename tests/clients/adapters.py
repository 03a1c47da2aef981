"""Write a token classifier and a classifier of pairs with one label to a directory; runs where PEFT is."""

import sys
from pathlib import Path

from lorat.base import locate_base
from tests.oracle import make_peft


def main(directory: Path) -> None:
    base = locate_base(None)
    make_peft(base, directory / "ner", task="TOKEN_CLS", num_labels=5)
    make_peft(base, directory / "reranker", task="SEQ_CLS", num_labels=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
