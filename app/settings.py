"""Settings: read once from `LORAT_*` and the command line, typed and frozen. A bad value stops the start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 2**20
Count = Annotated[int, Field(ge=1)]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What `lorat serve` can be told; each field is `LORAT_<FIELD>` and a flag of the same name."""

    model_config = SettingsConfigDict(env_prefix="LORAT_", frozen=True, env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port to listen on")
    base: str | None = Field(None, description="base model: directory or hub id (default: the embedded MiniLM)")
    store: str = Field("./adapters", description="where adapters are kept: directory or URL")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="type to compute in")
    slots: Count = Field(64, description="adapters on the device at once")
    max_rank: Count = Field(256, description="largest rank of an adapter")
    host_cache_bytes: Count = Field(512 * MEBIBYTE, description="memory for adapters that are not in a slot")
    follow_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        0.5, description="how often to look for what other processes changed in the store"
    )
    keep_versions: Count | None = Field(None, description="newest versions of a name that an upload leaves")
    merge: Literal["auto", "never"] = Field("auto", description="auto: adapters with much traffic get merged weights")
    merge_bytes: Annotated[int, Field(ge=0)] = Field(256 * MEBIBYTE, description="memory for merged weights")
    preload: Names = Field((), description="adapters loaded before /ready, comma separated")
    served_name: Annotated[str, Field(min_length=1)] = Field("base", description="what /v1 routes call the base")
    lora_dir: Path | None = Field(
        None, description="directory that /v1/load_lora_adapter may read below; none: that route is closed"
    )
    demo: bool = Field(True, description="import the demo adapters into a store that never held any")
    workers: Count | None = Field(
        None, description="forward passes at a time; none: a core each on a CPU, two on a GPU"
    )
    max_batch_tokens: Count | None = Field(
        None, description="tokens in one forward pass; none: measured at start, as `lorat tune` does"
    )
    max_concurrent_requests: Count = Field(512, description="requests admitted at once; more get 429")
    max_client_batch_size: Count = Field(256, description="inputs in one request")
    max_body_bytes: Count = Field(8 * MEBIBYTE, description="size of an inference request's body")
    max_upload_bytes: Count = Field(256 * MEBIBYTE, description="size of an uploaded adapter")
    auto_truncate: bool = Field(True, description="cut over-long inputs where the request does not say")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug: a line per forward")
    graceful_seconds: Count = Field(30, description="time that running requests get at shutdown")
    api_key: Keys = Field((), description="keys that open inference")
    admin_key: Keys = Field((), description="keys that open everything")
