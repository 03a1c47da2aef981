"""docs/operations.md against the code: settings, metrics, errors. What fails says which rows to write."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import STATUS, reason_of
from app.settings import Settings
from tests.app.conftest import running, upload
from tests.oracle import make_peft

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()


def table(heading):
    """The rows of the table under a heading, without its head."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def row(*cells):
    return f"| {' | '.join(cells)} |"


def compare(heading, wanted):
    written = table(heading)
    missing = [line for line in wanted if line not in written]
    unknown = [line for line in written if line not in wanted]
    assert not missing and not unknown, "\n".join([f"## {heading}", "missing:", *missing, "unknown:", *unknown])
    assert len(written) == len(wanted)


def default(value):
    if value is None or value == ():
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"`{value}`" if isinstance(value, str) else str(value)


def test_every_setting_is_in_its_table():
    fields = Settings.model_fields.items()
    compare("Settings", [
        row(f"`LORAT_{name.upper()}`", f"`--{name.replace('_', '-')}`", default(field.default), field.description)
        for name, field in fields
    ])  # fmt: skip


def test_every_error_is_in_its_table():
    compare("Errors", [
        row(str(status), kind, f"`{reason_of(error)}`", error.__doc__.splitlines()[0])
        for error, (status, kind) in STATUS.items()
    ])  # fmt: skip


@pytest.fixture(scope="module")
def shown(tiny_path, tmp_path_factory):
    """What `/metrics` shows after traffic."""
    directory = tmp_path_factory.mktemp("server")
    settings = Settings(base=str(tiny_path), store=str(directory / "store"), demo=False)
    with running(settings) as client:
        upload(client, "a", make_peft(tiny_path, directory / "a", r=2).directory).raise_for_status()
        client.post("/embed?adapter=a", json={"inputs": "hello"}).raise_for_status()
        assert client.post("/embed", json={"inputs": []}).status_code == 400
        text = client.get("/metrics").text
    return list(text_string_to_metric_families(text))


def test_every_metric_is_in_its_table(shown):
    def labels(family):
        found = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        return ", ".join(f"`{label}`" for label in found)

    def name(family):
        return f"{family.name}_total" if family.type == "counter" else family.name

    compare("Metrics", [
        row(f"`{name(family)}`", family.type, labels(family) or "-", family.documentation)
        for family in shown
        if not family.name.startswith("process_")  # prometheus_client's own, by the system
    ])  # fmt: skip


def test_the_queries_ask_for_metrics_that_exist(shown):
    samples = {sample.name for family in shown for sample in family.samples}
    asked = {name for code in re.findall(r"^    (.*)$", PAGE, re.MULTILINE) for name in re.findall(r"lorat_\w+", code)}
    assert asked and asked <= samples, asked - samples
