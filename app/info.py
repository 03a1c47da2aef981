"""What `/info` and the log say of a service."""

from typing import Any

from app.service import TOKENIZER_THREADS, Service
from app.store.location import without_credentials
from lorat import __version__


def describe(service: Service) -> dict[str, Any]:
    """What `/info` answers: TEI's fields, and ours."""
    settings, model = service.settings, service.model
    recipe = model.base.recipe
    return {
        "model_id": model.base.name,
        "model_sha": model.base.shape.base_id,
        "model_dtype": _dtype(service),
        "model_type": {"embedding": {"pooling": "+".join(recipe.pooling)}},
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_input_length": service.max_input_length(None),
        "max_batch_tokens": service.engine.max_batch_tokens,
        "max_client_batch_size": settings.max_client_batch_size,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": TOKENIZER_THREADS,
        "version": __version__,
        "adapters": len(service.registry.catalog),
        "slots": {"capacity": model.slots.capacity, "used": service.engine.resident},
        "device": str(model.device),
        "fingerprint": service.fingerprint,
    }


def start_facts(service: Service) -> dict[str, Any]:
    """What the log says of a service that has started."""
    settings, model = service.settings, service.model
    return {
        "base": model.base.name,
        "device": str(model.device),
        "dtype": _dtype(service),
        "workers": len(service.engine.queue.workers),
        "store": without_credentials(settings.store),
        "adapters": len(service.registry.catalog),
        "api_keys": len(settings.api_key),
        "admin_keys": len(settings.admin_key),
    }


def _dtype(service: Service) -> str:
    return str(service.model.dtype).removeprefix("torch.")
