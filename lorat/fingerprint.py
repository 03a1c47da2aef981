"""Two hashes: of a checkpoint's encoder (base id) and of the tensors a forward pass reads (fingerprint)."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lorat.layout import plain


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def fingerprint(*modules: nn.Module | None) -> str:
    """SHA-256, in hex, over name, dtype, shape and bytes of every parameter and buffer, in name order."""
    digest = hashlib.sha256()
    for position, module in enumerate(modules):
        named = [] if module is None else [*module.named_parameters(), *module.named_buffers()]
        _update(
            digest,
            ((f"{position}.{name}", tensor) for name, tensor in sorted(named, key=lambda item: item[0])),
        )
    return digest.hexdigest()


def base_id(checkpoint: Path) -> str:
    """SHA-256, in hex, over the tensors of a checkpoint's embeddings and encoder, in their file's dtype.

    Names are taken without a leading `bert.`, in sorted order, so a BertModel's checkpoint and one of the
    same encoder under a head are the same base.
    """
    digest = hashlib.sha256()
    for short, file, key in sorted(_encoder_keys(checkpoint), key=lambda item: item[0]):
        with safe_open(file, framework="pt") as tensors:
            _update(digest, [(short, tensors.get_tensor(key))])
    return digest.hexdigest()


def has_tensor(checkpoint: Path, name: str) -> bool:
    """Whether a checkpoint's safetensors hold a tensor, with or without a leading `bert.`."""
    return any(short == name for short, _, _ in _keys(checkpoint))


def _encoder_keys(checkpoint: Path) -> Iterable[tuple[str, Path, str]]:
    for short, file, key in _keys(checkpoint):
        if short.startswith(("embeddings.", "encoder.")) and not short.endswith("_ids"):
            yield short, file, key


def _keys(checkpoint: Path) -> Iterable[tuple[str, Path, str]]:
    for file in sorted(checkpoint.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in list(tensors.keys()):
                yield key.removeprefix("bert."), file, key


def _update(digest: _Hash, named: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in named:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        data = plain(tensor.detach()).cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(data.numpy().data)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
