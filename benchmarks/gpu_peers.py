"""What people use on a GPU today, each as a function that computes the same."""

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import BertModel, PreTrainedTokenizerFast

from benchmarks.gpu_bench import ADAPTERS, CONFIG, DEVICE, DTYPE, LENGTH, SEQUENCES

Runs = Mapping[str, Callable[[], object]]
PEFT_BATCHES = 2  # of a pass: with 64 adapters one takes a third of a second


def peft() -> Runs:
    """PEFT's own way to mix adapters in a batch: 1, 8 and 64 of rank 8 on query and value."""
    if not importlib.util.find_spec("peft"):
        print("peft is not installed: it was left out", file=sys.stderr)
        return {}
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], init_lora_weights=False)
    model = get_peft_model(BertModel(CONFIG), config, adapter_name="0")
    for place in range(1, ADAPTERS):
        model.add_adapter(str(place), config)
    model = model.to(DEVICE, DTYPE).eval()
    ids = torch.randint(0, CONFIG.vocab_size, (SEQUENCES, LENGTH), device=DEVICE)
    return {f"peft, {count} adapters": _peft_run(model, ids, count) for count in (1, 8, ADAPTERS)}


def sentence_transformers(model: BertModel, ids: list[list[int]], size: int) -> Runs:
    """sentence-transformers itself, from texts, with a tokenizer of one word a token."""
    if not importlib.util.find_spec("sentence_transformers"):
        print("sentence-transformers is not installed: it was left out", file=sys.stderr)
        return {}
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        words = Tokenizer(WordLevel({str(place): place for place in range(CONFIG.vocab_size)}, unk_token="0"))
        words.pre_tokenizer = WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0").save_pretrained(directory)
        served = SentenceTransformer(directory, device=DEVICE).to(DTYPE)  # of a plain model it takes the mean
    texts = [" ".join(map(str, one)) for one in ids]
    return {f"sentence-transformers, batches of {size}": lambda: served.encode(texts, batch_size=size)}


def _peft_run(model: Any, ids: torch.Tensor, count: int) -> Callable[[], object]:
    names = [str(place % count) for place in range(SEQUENCES)]

    @torch.inference_mode()
    def run() -> None:
        for _ in range(PEFT_BATCHES):
            model(input_ids=ids, adapter_names=names).last_hidden_state.float().mean(1).cpu()

    return run


def padded(model: BertModel, ids: list[list[int]], size: int) -> Callable[[], object]:
    """What sentence-transformers does: sorted by length, padded, the mean over the tokens, copied back."""
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))

    @torch.inference_mode()
    def run() -> None:
        vectors = []
        for start in range(0, len(order), size):
            chosen = [ids[place] for place in order[start : start + size]]
            longest = len(chosen[0])
            tokens = torch.tensor([one + [0] * (longest - len(one)) for one in chosen]).to(DEVICE)
            mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in chosen]).to(DEVICE)
            hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            vectors.append((hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True))
        torch.cat(vectors).cpu()

    return run
