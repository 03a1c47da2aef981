"""Wire types of `/info`, `/health` and `/ready`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Status(BaseModel):
    """What a health check reads."""

    status: Literal["ok", "ready"]


class SlotsInfo(BaseModel):
    """Places for adapters on the device."""

    capacity: int
    used: int


class PoolingInfo(BaseModel):
    """The base's pooling."""

    pooling: str


class ModelType(BaseModel):
    """text-embeddings-inference's way to say what a model is for."""

    embedding: PoolingInfo


class Info(BaseModel):
    """`GET /info`: text-embeddings-inference's fields, then ours."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    adapters: int
    slots: SlotsInfo
    device: str
    fingerprint: str
