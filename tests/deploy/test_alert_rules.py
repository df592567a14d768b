"""Alert and recording rules: valid, each tested by promtool, each with what a person needs who is woken by it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.metrics.catalog import described_metrics
from tests.deploy.prometheus_programs import PROMETHEUS, program

RULES, ALERTS, CONFIG = (PROMETHEUS / name for name in ("slmops.rules.yml", "slmops.alerts.yml", "prometheus.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yml"))
RUNBOOKS = PROMETHEUS.parents[1] / "docs/operate/monitoring.md"
SEVERITIES = {"critical", "warning"}


def rules(path: Path, kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def alerts() -> list[dict[str, Any]]:
    return rules(ALERTS, "alert")


def promtool(*arguments: str | Path) -> None:
    run = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_rules_and_configuration_are_valid() -> None:
    promtool("check", "rules", RULES, ALERTS)
    promtool("check", "config", "--syntax-only", CONFIG)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    promtool("test", "rules", path)


def test_the_configuration_loads_both_files() -> None:
    configuration = yaml.safe_load(CONFIG.read_text())
    assert [PROMETHEUS / name for name in configuration["rule_files"]] == [RULES, ALERTS]
    assert configuration["global"]["external_labels"].keys() == {"slmops_docs"}
    (job,) = configuration["scrape_configs"]
    assert job["job_name"].startswith("slmops")


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    cases = [case for path in TESTS for test in yaml.safe_load(path.read_text())["tests"] for case in test["promql_expr_test"]]
    fired = {name for case in cases for name in re.findall(r'alertname="(\w+)"', str(case["exp_samples"]))}
    assert fired == {alert["alert"] for alert in alerts()}
    assert sum(case["expr"].startswith("ALERTS") and not case["exp_samples"] for case in cases) > 20


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    name, texts = alert["alert"], alert["annotations"]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in SEVERITIES
    assert texts.keys() == {"summary", "description", "runbook_url"}
    assert texts["description"].endswith(".")
    assert texts["runbook_url"] == f"{{{{ $externalLabels.slmops_docs }}}}/operate/monitoring/#{name.lower()}"
    assert f"\n### {name}\n" in RUNBOOKS.read_text(encoding="utf-8")


def test_no_runbook_is_of_an_alert_that_is_gone() -> None:
    headings = set(re.findall(r"^### (Slmops\w+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE))
    assert headings == {alert["alert"] for alert in alerts()}


def test_rules_read_what_is_described_or_recorded() -> None:
    described = {each.name for each in described_metrics()}
    described |= {f"{each.name}_{part}" for each in described_metrics() for part in ("bucket", "sum", "count")}
    recorded = {rule["record"] for rule in rules(RULES, "record")}
    read = " ".join(rule["expr"] for rule in (*alerts(), *rules(RULES, "record")))
    assert set(re.findall(r"\bjob_instance\w*:\w+:\w+", read)) <= recorded
    unrecorded = re.sub(r"\bjob_instance\w*:\w+:\w+", "", read)
    assert set(re.findall(r"\b(?:slmops|process)_\w+|vllm:\w+", unrecorded)) - described == set()
