"""Settings: read once from `LORAT_*` and the command line, typed and frozen. A bad one stops the start."""

import os
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, DirectoryPath, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.access.keys import Key, parse_keys
from app.environment import PREFIX, check_port, check_variables
from lorat.config import MAX_RANK

KIBIBYTE, MEBIBYTE = 2**10, 2**20
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _split(value: object) -> object:
    return _parts(value) if isinstance(value, str) else value


def _keys(value: object) -> object:
    return parse_keys(_parts(value)) if isinstance(value, str) else value


def _addresses(value: str) -> str:
    if value != "*":
        for part in value.split(","):
            ip_network(part.strip())
    return value


Addresses = Annotated[str, AfterValidator(_addresses)]
Keys = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_keys)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What `lorat serve` can be told; each field is `LORAT_<FIELD>` and a flag of the same name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535), BeforeValidator(check_port)] = Field(
        8000, description="port to listen on"
    )
    forwarded_allow_ips: Addresses = Field(
        "127.0.0.1",
        description="addresses and networks, comma separated, whose X-Forwarded-For and X-Forwarded-Proto are "
        "believed; *: everyone's",
    )
    base: str | None = Field(None, description="base model: directory or hub id (default: the embedded MiniLM)")
    store: str = Field("./adapters", description="where adapters are kept: directory or URL")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="type to compute in; auto: float32 on a CPU, bfloat16 on a GPU"
    )
    slots: Count = Field(64, description="adapters on the device at once")
    max_rank: Count = Field(MAX_RANK, description="largest rank of an adapter")
    host_cache_bytes: Count = Field(512 * MEBIBYTE, description="memory for adapters that are not in a slot")
    follow_seconds: Positive = Field(0.5, description="how often to look for what other processes changed in the store")
    keep_versions: Count | None = Field(
        None, description="newest versions of a name that an upload or a rollback leaves"
    )
    merge: Literal["auto", "never"] = Field("auto", description="auto: on a CPU, adapters with much traffic are merged")
    merge_bytes: Annotated[int, Field(ge=0)] = Field(
        256 * MEBIBYTE, description="memory for merged weights; merge=always may exceed it"
    )
    preload: Names = Field((), description="adapters loaded before /ready, comma separated")
    served_name: Annotated[str, Field(min_length=1)] = Field("base", description="what /v1 routes call the base")
    reranker: str | None = Field(
        None, description="the adapter of /rerank where a request names none: clients of one-model servers cannot"
    )
    lora_dir: DirectoryPath | None = Field(
        None, description="directory that /v1/load_lora_adapter may read below; none: that route is closed"
    )
    demo: bool = Field(True, description="import the demo adapters into a store that never held any")
    workers: Count | None = Field(
        None, description="forward passes at a time; none: a core each on a CPU, two on a GPU"
    )
    max_batch_tokens: Count | None = Field(
        None, description="tokens in one forward pass; none: measured at start, as `lorat tune` does"
    )
    max_concurrent_requests: Count = Field(512, description="inference requests admitted at once; more get 429")
    max_queue_seconds: Positive = Field(
        1.0,
        description="how long what waits may take, by the measured pace; more get 429 with Retry-After. Adapters take "
        "turns: one adapter's flood fills the queue for itself, not for others. Longer serves larger bursts, shorter "
        "keeps answers quick under overload",
    )
    max_concurrent_per_key: Count | None = Field(
        None,
        description="inference requests of one key at once; more get 429. Where there are no keys, all callers are one",
    )
    max_concurrent_per_adapter: Count | None = Field(
        None, description="inference requests for one adapter name at once; more get 429. The base counts as one"
    )
    requests_per_second_per_key: Positive | None = Field(
        None, description="inference requests of one key a second; one second's worth, at least one, may come at once"
    )
    requests_per_second_per_adapter: Positive | None = Field(
        None, description="inference requests for one adapter name a second; as requests_per_second_per_key"
    )
    request_timeout_seconds: Positive | None = Field(
        None,
        description="when an inference request that sends no X-Request-Timeout is given up: 504, and what was not "
        "computed yet is not; 429 at once where the queue is longer than that. None: it waits as long as its client "
        "does",
    )
    max_client_batch_size: Count = Field(256, description="inputs in one request")
    max_body_bytes: Count = Field(8 * MEBIBYTE, description="size of an inference request's body")
    max_upload_bytes: Count = Field(256 * MEBIBYTE, description="size of an uploaded adapter")
    max_concurrent_transfers: Count = Field(
        4,
        description="uploads of adapters at once, and downloads at once; more get 429. Each lies in the temporary "
        "directory meanwhile, an upload up to three times its size",
    )
    max_embed_all_bytes: Count = Field(
        256 * MEBIBYTE,
        description="memory for the vectors of /embed_all, reckoned from the inputs' lengths, from before they are "
        "computed until their clients have them; more get 429, one answer of more is 422. Below 1 MiB none is counted",
    )
    max_header_bytes: Count = Field(32 * KIBIBYTE, description="size of a request's head; more get 431")
    header_timeout_seconds: Positive = Field(
        10.0, description="time in which a connection must have sent a request's head; then it is closed"
    )
    body_timeout_seconds: Positive = Field(
        20.0,
        description="time in which a body must have arrived, and a second more for each 64 KiB of it; then it is 408. "
        "As long may a client take for a download, or for any large answer; then it is cut off",
    )
    auto_truncate: bool = Field(True, description="cut over-long inputs where the request does not say")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug: a line per forward")
    log_format: Literal["text", "json"] = Field("text", description="how log lines are written")
    access_log: bool = Field(False, description="a log line for each request")
    metrics_adapters: Annotated[int, Field(ge=0)] = Field(
        100, description="adapters with metrics of their own; the others' are counted together"
    )
    trace_endpoint: SecretStr | None = Field(
        None, description="OTLP/HTTP URL that traces are sent to; needs the extra `trace`"
    )
    keep_alive_seconds: Count = Field(
        75, description="time that a connection may be idle; longer than clients keep theirs, or they meet a closed one"
    )
    graceful_seconds: Count = Field(30, description="time that running requests get at shutdown")
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="time for which /ready says 503 at shutdown while requests are still taken"
    )
    api_key: Keys = Field(
        (),
        description="keys that open inference and reading, comma separated, so that one can follow another. KEY:name-* "
        "opens only names that begin so, KEY:name only that one, and more parts with colons more of them, beside the "
        "base. Where only these are set, nobody may change adapters",
    )
    admin_key: Keys = Field(
        (),
        description="keys that open changes of adapters as well, written as api_key's. Where only these are set, "
        "inference needs one too. Where no key is set at all, everyone may do everything",
    )
    metrics_key: bool = Field(False, description="whether /metrics needs a key, one that opens all names")

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, given: Any) -> Any:
        check_variables(os.environ, cls.model_fields)
        return given
