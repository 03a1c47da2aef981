"""Wire types of `/adapters`: what is said of adapters and their versions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from app.schemas.body import Body
from lorat.adapter import Task

Merge = Literal["auto", "always", "never"]


class RollbackRequest(Body):
    """`POST /adapters/{name}/rollback`."""

    version: Annotated[int, Field(ge=1, lt=10**9, strict=True)] = Field(
        description="the version to go back to", examples=[1]
    )


class SettingsRequest(Body):
    """`PATCH /adapters/{name}`. What is left out stays as it is."""

    pinned: StrictBool = Field(False, description="kept on the device as long as others can give way", examples=[True])
    merge: Merge = Field("auto", description="whether it gets merged weights of its own", examples=["auto"])


class HeadFacts(BaseModel):
    """A head's number of labels, and how its logits become scores."""

    labels: int
    kind: Literal["softmax", "sigmoid"]


class Facts(BaseModel):
    """What is true of a content, whatever its name."""

    description: str | None
    tags: list[str]
    base_match: Literal["verified", "unknown"] = Field(description="whether its files say that it is for this base")
    task: Task
    rank: int
    alpha: float
    targets: list[str] = Field(description="linear layers that carry LoRA")
    layers: list[int]
    head: HeadFacts | None
    labels: list[str] | None
    recipe: dict[str, Any] | None = Field(description="its own embedding recipe")
    parameters: int
    bytes: int


class Identity(BaseModel):
    """Which content a name means."""

    name: str
    version: int
    digest: str = Field(description="`sha256:` and the hash of its files")


class Record(Facts, Identity):
    """One version of a name."""

    created: str = Field(description="ISO 8601, UTC")
    pinned: bool
    merge: Merge
    damaged: str = Field("", description="only where it cannot be served: why")
    ignored: list[str] = Field([], description="only at an upload: files that were left out")


class DryRun(Facts):
    """What an upload would say."""

    name: str
    dry_run: Literal[True]
    ignored: list[str] = Field([], description="files that would be left out")


class Page(BaseModel):
    """Adapters by name. `next`: where the list goes on, with `?after=`."""

    adapters: list[Record]
    next: str | None


class Versions(BaseModel):
    """Versions of a name, newest first. `next`: where the list goes on, with `?after=`."""

    versions: list[Record]
    next: int | None


class Stats(BaseModel):
    """What changes by itself, in this process."""

    name: str
    version: int
    resident: Literal["device", "host", "store"]
    merged: bool
    requests: int
    last_used: str | None = Field(description="ISO 8601, UTC")
