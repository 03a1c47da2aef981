"""transformers' switches for computing activations again in the backward pass, for a model that holds another one."""

from typing import Any


class ActivationCheckpointing:
    """What a Trainer asks of its model, handed on to the wrapped one."""

    model: Any

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """As the wrapped model's: activations are computed again in the backward pass, less memory for more time."""
        if (activation_checkpointing_kwargs or {}).get("use_reentrant"):
            self.model.enable_input_require_grads()  # the reentrant kind sees a gradient only through its inputs
        _of_either_name(self.model, "enable")(activation_checkpointing_kwargs, **options)

    def activation_checkpointing_disable(self) -> None:
        """Keep the activations again."""
        self.model.disable_input_require_grads()
        _of_either_name(self.model, "disable")()

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def gradient_checkpointing_disable(self) -> None:
        """The older name of `activation_checkpointing_disable`."""
        self.activation_checkpointing_disable()


def _of_either_name(model: Any, what: str) -> Any:
    """transformers' method that switches checkpointing of activations, which it renamed."""
    return getattr(model, f"activation_checkpointing_{what}", None) or getattr(model, f"gradient_checkpointing_{what}")
