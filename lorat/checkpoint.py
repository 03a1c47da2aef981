"""What `LoRAT.state_dict` holds: with mode "all" only what trains, so a trainer's checkpoint has no copy of the base.

Two hooks of torch's own do it, so it holds through whatever stands around the model: Accelerate, `torch.compile`,
DataParallel, DistributedDataParallel, a module of yours.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from lorat.model import LoRAT


def keep_what_trains(model: "LoRAT", state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Take the frozen base out of a state dict that torch has just filled."""
    for name in _frozen(model, prefix):
        del state[name]


def complete(model: "LoRAT", state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before a state dict is loaded: one that holds nothing of the frozen base leaves the base as it is.

    One that holds any of it is taken as whole, and torch names what it lacks. Merged weights are dropped: they
    are of what was there before.
    """
    model.unmerge()
    frozen = _frozen(model, prefix)
    if not frozen.keys() & state.keys():
        state.update(frozen)


def _frozen(model: "LoRAT", prefix: str) -> dict[str, Tensor]:
    """What a checkpoint leaves out, by full name: the model's own tensors, not copies."""
    if model.settings.mode == "part":
        return {}
    whole = model.model.state_dict(prefix=f"{prefix}model.", keep_vars=True)
    kept = {id(parameter) for parameter in model.trained()}
    return {name: tensor for name, tensor in whole.items() if id(tensor) not in kept}
