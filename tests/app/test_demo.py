"""The demo adapters under settings that they do not fit."""

from functools import partial

import pytest

from app.adapters.changes import Changes
from app.adapters.registry import Registry
from app.adapters.upload import UploadLimits
from app.demo import DIRECTORY, import_demos
from app.main import check_adapter, open_service
from app.observe.metrics import Metrics
from app.settings import Settings
from app.store.adapter_log import AdapterLog
from app.store.store import Store
from lorat import MultiLoRAT

USUAL = UploadLimits()
NAMES = sorted(path.parent.name for path in DIRECTORY.glob("*/adapter_config.json"))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    store = str(tmp_path_factory.mktemp("store"))
    service = open_service(Settings(store=store, demo=False, workers=1, max_batch_tokens=256), Metrics())
    yield service
    service.close()


def imported(service, store, limits=USUAL, max_rank=256, served_name="base"):
    """What is there after the demos were imported into a store, by these settings."""
    log = AdapterLog(Store.open(str(store)))
    model = MultiLoRAT(service.model.base, slots=1, max_rank=max_rank)
    registry = Registry(log, partial(check_adapter, model), service.engine, cache_bytes=1)
    import_demos(Changes(registry, limits, served_name=served_name), log.catalog)
    registry.close()
    return [version.name for version in log.catalog.list()]


@pytest.mark.parametrize(
    ("settings", "named", "left"),
    [
        ({"served_name": "sentiment"}, "LORAT_SERVED_NAME", [name for name in NAMES if name != "sentiment"]),
        ({"limits": UploadLimits(max_bytes=100_000)}, "LORAT_MAX_UPLOAD_BYTES", []),
        ({"max_rank": 1}, "LORAT_MAX_RANK", []),
    ],
)
def test_a_demo_that_does_not_fit_the_settings_is_left_out_and_said(service, tmp_path, caplog, settings, named, left):
    assert imported(service, tmp_path, **settings) == left
    assert named in caplog.text and "sentiment is left out" in caplog.text
    if not left:
        assert imported(service, tmp_path) == NAMES  # nothing was there: the next start has them all
