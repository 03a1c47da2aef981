"""Two hashes: of a checkpoint's encoder (base id) and of the tensors a forward pass reads (fingerprint)."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lorat.files.base_weights import names, opened
from lorat.layout import plain


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def fingerprint(module: nn.Module) -> str:
    """SHA-256, in hex, over name, dtype, shape and bytes of every parameter and buffer, in name order."""
    digest = hashlib.sha256()
    _update(digest, sorted([*module.named_parameters(), *module.named_buffers()], key=lambda item: item[0]))
    return digest.hexdigest()


def base_id(checkpoint: Path) -> str:
    """SHA-256, in hex, over the tensors of a checkpoint's embeddings and encoder, in their file's dtype.

    Names are taken without a leading `bert.`, in sorted order, so a BertModel's checkpoint and one of the
    same encoder under a head are the same base.
    """
    digest = hashlib.sha256()
    for name, file, key in sorted(names(checkpoint), key=lambda item: item[0]):
        if is_encoder(name):
            with opened(file) as tensors:
                _update(digest, [(name, tensors.get_tensor(key))])
    return digest.hexdigest()


def tensors_id(named: Mapping[str, Tensor]) -> str:
    """The base id of a checkpoint that holds these tensors of the embeddings and the encoder."""
    digest = hashlib.sha256()
    _update(digest, sorted(named.items()))
    return digest.hexdigest()


def is_encoder(name: str) -> bool:
    """Whether a tensor is of the embeddings or the encoder, and no buffer of positions or types."""
    return name.startswith(("embeddings.", "encoder.")) and not name.endswith("_ids")


def _update(digest: _Hash, named: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in named:
        data = plain(tensor.detach()).cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}\n".encode())
        digest.update(data.view(-1).view(torch.uint8).numpy().data)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
