"""What people use today, each as a function that computes every text of the corpus once: (texts, hidden) float32."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertModel

Run = Callable[[], np.ndarray]
_BATCH = 32


def peers(ids: list[list[int]], base: Path, adapters: Sequence[Path], everything: bool) -> dict[str, Run]:
    """The padded forward; with `everything` also each peer that is installed."""
    found: dict[str, Run] = {"torch padded fp32": padded(ids, BertModel.from_pretrained(base).eval())}
    if everything and importlib.util.find_spec("peft"):
        found |= {f"peft, {count} adapters": peft(ids, base, adapters[:count]) for count in (1, 8, 32)}
    if everything and importlib.util.find_spec("openvino"):
        found |= {f"openvino {kind}": openvino(ids, base, kind) for kind in ("f32", "bf16")}
    if everything and importlib.util.find_spec("onnxruntime"):
        found["onnxruntime fp32"] = onnxruntime(ids, base)
    return found


def padded(ids: list[list[int]], model: Callable[..., object]) -> Run:
    """Batches sorted by length and padded, all threads in one product: what sentence-transformers does."""
    return _by_batches(ids, lambda tokens, mask, _: _hidden(model(input_ids=tokens, attention_mask=mask)))


def peft(ids: list[list[int]], base: Path, adapters: Sequence[Path]) -> Run:
    """PEFT's own way to mix adapters in one batch."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(BertModel.from_pretrained(base), adapters[0], adapter_name="0")
    for place, adapter in enumerate(adapters[1:], start=1):
        model.load_adapter(adapter, adapter_name=str(place))
    model.eval()

    def run(tokens: torch.Tensor, mask: torch.Tensor, places: np.ndarray) -> torch.Tensor:
        names = [str(place % len(adapters)) for place in places]
        return _hidden(model(input_ids=tokens, attention_mask=mask, adapter_names=names))

    return _by_batches(ids, run)


def openvino(ids: list[list[int]], base: Path, kind: str) -> Run:
    """OpenVINO's CPU plugin, tuned for throughput or latency as it sees fit for one caller."""
    import openvino

    model = openvino.convert_model(_bare(base), example_input=_example())
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": kind})
    return _by_batches(ids, lambda tokens, mask, _: torch.from_numpy(compiled([tokens.numpy(), mask.numpy()])[0]))


def onnxruntime(ids: list[list[int]], base: Path) -> Run:
    """onnxruntime on the exported model."""
    import tempfile

    from onnxruntime import InferenceSession

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask", "hidden")}
        torch.onnx.export(
            _bare(base), _example(), str(path), dynamo=False, dynamic_axes=axes,
            input_names=["input_ids", "attention_mask"], output_names=["hidden"],
        )  # fmt: skip
        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(tokens: torch.Tensor, mask: torch.Tensor, _: np.ndarray) -> torch.Tensor:
        inputs = {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()}
        return torch.from_numpy(session.run(None, inputs)[0])

    return _by_batches(ids, run)


class _Bare(torch.nn.Module):
    def __init__(self, model: BertModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return _hidden(self.model(input_ids=input_ids, attention_mask=attention_mask))


def _bare(base: Path) -> _Bare:
    return _Bare(BertModel.from_pretrained(base, attn_implementation="eager")).eval()


def _example() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((2, 16), 101), torch.ones(2, 16, dtype=torch.int64)


def _hidden(output: object) -> torch.Tensor:
    hidden: torch.Tensor = output.last_hidden_state  # type: ignore[attr-defined]
    return hidden


def _by_batches(ids: list[list[int]], forward: Callable[[torch.Tensor, torch.Tensor, np.ndarray], torch.Tensor]) -> Run:
    order = np.argsort([len(one) for one in ids], kind="stable")

    @torch.inference_mode()
    def run() -> np.ndarray:
        vectors = np.empty((len(ids), 0), dtype=np.float32)
        for start in range(0, len(ids), _BATCH):
            places = order[start : start + _BATCH]
            longest = max(len(ids[place]) for place in places)
            tokens = torch.tensor([ids[place] + [0] * (longest - len(ids[place])) for place in places])
            mask = (torch.arange(longest) < torch.tensor([[len(ids[place])] for place in places])).long()
            hidden = forward(tokens, mask, places).float()
            pooled = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
            if not vectors.size:
                vectors = np.empty((len(ids), pooled.shape[1]), dtype=np.float32)
            vectors[places] = pooled.numpy()
        return vectors

    return run
