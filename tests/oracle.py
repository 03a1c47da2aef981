"""PEFT as the oracle: make adapters with it, and ask it for their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoTokenizer, BertForSequenceClassification, BertForTokenClassification, BertModel

KINDS: dict[str | None, Any] = {
    None: BertModel,
    "FEATURE_EXTRACTION": BertModel,
    "SEQ_CLS": BertForSequenceClassification,
    "TOKEN_CLS": BertForTokenClassification,
}
ALL_LINEAR = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


@dataclass
class PeftAdapter:
    """An adapter directory that PEFT saved, and the PEFT model that it came from."""

    directory: Path
    model: PeftModel
    tokenizer: Any

    @torch.no_grad()
    def answers(self, texts: Sequence[Any], max_length: int = 256) -> list[Tensor]:
        """Per text, alone: logits, token logits, or the normalised mean of the last hidden states."""
        return [self._answer(text, max_length) for text in texts]

    @torch.no_grad()
    def vectors(self, texts: Sequence[Any], max_length: int = 256) -> list[Tensor]:
        """Per text, alone: the normalised mean of the last hidden states, of a classifier's encoder as well."""
        encoder = getattr(self.model.base_model.model, "bert", self.model)
        return [_mean(encoder(**self._tokens(text, max_length))) for text in texts]

    def _answer(self, text: Any, max_length: int) -> Tensor:
        output = self.model(**self._tokens(text, max_length))
        return output.logits[0] if hasattr(output, "logits") else _mean(output)

    def _tokens(self, text: Any, max_length: int) -> Any:
        parts = (text,) if isinstance(text, str) else text
        return self.tokenizer(*parts, return_tensors="pt", truncation=True, max_length=max_length)


def _mean(output: Any) -> Tensor:
    return torch.nn.functional.normalize(output.last_hidden_state[0].mean(0), dim=0)


def make_peft(
    base: Path,
    directory: Path,
    *,
    task: str | None = None,
    num_labels: int = 2,
    seed: int = 0,
    size: float = 0.05,
    **options: Any,
) -> PeftAdapter:
    """A PEFT adapter on `base` with random weights of noticeable effect, saved to `directory`."""
    torch.manual_seed(seed)
    extra = {"num_labels": num_labels} if task in ("SEQ_CLS", "TOKEN_CLS") else {}
    options.setdefault("target_modules", ["query", "value"])
    model = get_peft_model(KINDS[task].from_pretrained(base, **extra), LoraConfig(task_type=task, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn_like(parameter)
            if "lora_B" in name:
                parameter *= 2
    model.eval()
    model.save_pretrained(directory)
    return PeftAdapter(directory, model, AutoTokenizer.from_pretrained(base))
