"""Prometheus with its alerts, and each query of the dashboard against what it has really scraped."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.stack import ROOT, Stack, wait_until
from tests.deploy.traffic import Traffic

FOLDER = ROOT / "deploy" / "prometheus"
ALERTS = [
    rule["alert"] for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "lorat.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def prometheus(stack: Stack) -> Iterator[Stack]:
    """The stack with Prometheus, which has scraped traffic for a minute."""
    stack.up("--no-recreate", "prometheus")
    yield stack
    stack.compose("rm", "--stop", "--force", "prometheus")


def promtool(stack: Stack, *arguments: str) -> str:
    return stack.compose("exec", "-T", "prometheus", "promtool", *arguments)


def query(stack: Stack, expression: str) -> list[str]:
    found = promtool(stack, "query", "instant", "http://127.0.0.1:9090", expression.replace("$__rate_interval", "1m"))
    return found.splitlines()


def test_promtool_has_nothing_to_say(prometheus: Stack):
    assert "SUCCESS" in promtool(prometheus, "check", "config", "/etc/prometheus/prometheus.yml")
    assert "SUCCESS" in promtool(prometheus, "test", "rules", "/etc/prometheus/alerts_test.yml")


def test_each_alert_is_fired_and_kept_quiet_by_a_test():
    cases = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    tested = [(rule["alertname"], bool(rule["exp_alerts"])) for case in cases for rule in case["alert_rule_test"]]
    assert sorted(tested) == sorted((alert, fired) for alert in ALERTS for fired in (False, True))


def test_each_alert_is_explained(stack: Stack):
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert [alert for alert in ALERTS if f"`{alert}`" not in page] == []


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Stack, traffic: Callable[[], Traffic]):
    wait_until(
        lambda: len(query(prometheus, "up == 1")) == 3, 60, "Prometheus does not reach two replicas and the gateway"
    )
    with traffic() as asking:
        with prometheus.client() as client:
            assert client.post("/embed?adapter=nobody", json={"inputs": "a"}).status_code == 404
        time.sleep(35)
        with prometheus.client() as client:
            assert client.post("/embed?adapter=nobody", json={"inputs": "a"}).status_code == 404
        time.sleep(15)
        empty = [(title, expression) for title, expression in QUERIES if not query(prometheus, expression)]
        assert empty == []
    print(f"\n{len(QUERIES)} queries of {len(PANELS)} panels answered; {asking.report('scraped')}")
    rated = query(prometheus, "sum(rate(lorat_requests_total[1m]))")
    assert float(re.search(r"=> (\S+)", rated[0])[1]) > 1
    asked = set(
        re.findall(r"\b(?:lorat|process|haproxy)_[a-z_]+", json.dumps(DASHBOARD) + (FOLDER / "alerts.yml").read_text())
    )
    absent = [name for name in asked if not query(prometheus, f"count({name})")]
    assert absent == []


def test_an_alert_fires_for_real(prometheus: Stack):
    victim = prometheus.replicas()[0]
    prometheus.compose("pause", "api")
    try:
        wait_until(lambda: query(prometheus, 'ALERTS{alertname="NoReplica", alertstate="firing"}'), 120, victim)
    finally:
        prometheus.compose("unpause", "api")
    for replica in prometheus.replicas():
        prometheus.wait_healthy(replica)


def test_grafana_is_provisioned_with_what_is_there():
    folder = ROOT / "deploy" / "grafana"
    [source] = yaml.safe_load((folder / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((folder / "provisioning/dashboards/lorat.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert Path(provider["options"]["path"]).as_posix() in " ".join(services["grafana"]["volumes"])
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
