"""Overview: is it healthy? The first dashboard to look at."""

from __future__ import annotations

from deploy.grafana.source.dashboard import DAEMONS, OF_MODELS, Dashboard, Row, events
from deploy.grafana.source.panel import Kind, Panel, Query, lines, percentiles, stat

_RATE = "[$__rate_interval]"
_NO_PROBES = f'{DAEMONS},route!~"/health|/ready|/metrics|/version"'
_REQUESTS = f"sum(rate(slmops_http_requests_total{{{_NO_PROBES}}}{_RATE}))"
_PART = "of the requests; 0 where there was none"


def _part(status: str) -> str:
    """Of all requests, those answered so; 0 where none was."""
    found = f"sum(rate(slmops_http_requests_total{{{_NO_PROBES},{status}}}{_RATE}))"
    return f"({found} or 0 * {_REQUESTS}) / ({_REQUESTS} > 0)"


def _increase(counter: str) -> str:
    return f"sum by (model_name) (increase({counter}{{{OF_MODELS}}}{_RATE}))"


_FAILED = _part('status=~"5..",status!="501"')
_REJECTED = _part('status="429"')
_ENGINE_ERRORS = (
    f'sum(rate(vllm:request_success_total{{{OF_MODELS},finished_reason="error"}}{_RATE})) / '
    f"(sum(rate(vllm:request_success_total{{{OF_MODELS}}}{_RATE})) > 0)"
)

_NOW = Row(
    "Now",
    (
        stat(
            "Alerts",
            "Alerts of slmops that fire now; the table names them. Always 0 where Prometheus does not load slmops.alerts.yml.",
            'count(ALERTS{alertname=~"Slmops.*",alertstate="firing"}) or vector(0)',
            "short",
            thresholds=((1, "bad"),),
        ),
        stat(
            "Daemons down",
            "Daemons that Prometheus cannot scrape: down, unreachable, or refusing its key.",
            'count(up{job=~"$job"} == 0) or vector(0)',
            "short",
            thresholds=((1, "bad"),),
        ),
        stat(
            "Daemons not ready",
            "Daemons whose default model does not answer. GET /ready with a key of the scope read says why.",
            f"count(slmops_ready{{{DAEMONS}}} == 0) or vector(0)",
            "short",
            thresholds=((1, "bad"),),
        ),
        stat(
            "Failed",
            f"Answered 5xx, {_PART}. 501 (what slmops does not have) is the client's error and does not count.",
            _FAILED,
            "percentunit",
            thresholds=((0.01, "warn"), (0.05, "bad")),
            without_data="no requests",
        ),
        stat(
            "Rejected",
            f"Answered 429, {_PART}: the queue of a model was full.",
            _REJECTED,
            "percentunit",
            thresholds=((0.01, "warn"), (0.05, "bad")),
            without_data="no requests",
        ),
        stat(
            "First token, p95",
            "Nineteen of twenty requests had their first token within this time.",
            f"histogram_quantile(0.95, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket{{{OF_MODELS}}}{_RATE})))",
            "s",
            thresholds=((2, "warn"), (5, "bad")),
            without_data="no requests",
        ),
        stat("Requests", "HTTP requests a second, without probes.", _REQUESTS, "reqps"),
        stat(
            "Tokens",
            "Tokens generated a second, all models together.",
            f"sum(rate(vllm:generation_tokens_total{{{OF_MODELS}}}{_RATE}))",
            "suffix: tok/s",
        ),
        stat(
            "Running and waiting",
            "Requests that the models are answering or that wait for a slot.",
            f"sum(vllm:num_requests_running{{{OF_MODELS}}}) + sum(vllm:num_requests_waiting{{{OF_MODELS}}})",
            "short",
            without_data="no model loaded",
        ),
        stat(
            "Memory budget",
            "What the models in memory take of the budget; near the top the next model evicts another.",
            f"max(slmops_memory_charged_bytes{{{DAEMONS}}} / slmops_memory_budget_bytes{{{DAEMONS}}})",
            "percentunit",
            thresholds=((0.9, "warn"), (0.95, "bad")),
        ),
        stat(
            "Disk left",
            "Free space of the home's disk, on the daemon that has least.",
            f"min(slmops_disk_free_bytes{{{DAEMONS}}})",
            "bytes",
            thresholds=((0, "bad"), (2e9, "warn"), (10e9, "good")),
        ),
        stat(
            "Version",
            "The version of slmops, by daemon.",
            f"slmops_build_info{{{DAEMONS}}}",
            "none",
            legend="{{version}}",
        ),
    ),
)
_STATE = Row(
    "State",
    (
        Panel(
            Kind.TABLE,
            "Firing alerts",
            "The alerts that fire now. Their annotations, in Prometheus or Alertmanager, say what to do.",
            (Query('ALERTS{alertname=~"Slmops.*",alertstate="firing"}', "{{alertname}}"),),
            "none",
            width=12,
            without_data="none",
        ),
        Panel(
            Kind.STATES,
            "Readiness",
            "Whether each daemon's default model answered. A gap: it was not scraped.",
            (Query(f"slmops_ready{{{DAEMONS}}}", "{{instance}}"),),
            "none",
            width=12,
            states={0: ("not ready", "bad"), 1: ("ready", "good")},
        ),
    ),
)
_REQUESTS_ROW = Row(
    "Requests",
    (
        lines(
            "Requests by status",
            "HTTP requests answered, probes included. 0: the client left before the answer began.",
            "reqps",
            (f"sum by (status) (rate(slmops_http_requests_total{{{DAEMONS}}}{_RATE}))", "{{status}}"),
            stacked=True,
        ),
        lines(
            "Error ratios",
            "HTTP: answered 5xx. Engine: ended with an error, also after a stream had begun with 200. Rejected: answered 429.",
            "percentunit",
            (_FAILED, "HTTP"),
            (_ENGINE_ERRORS, "engine"),
            (_REJECTED, "rejected"),
            thresholds=((0.05, "bad"),),
            without_data="no requests",
        ),
        lines(
            "Errors by route and status",
            "How many requests failed or were rejected, and where. The log has a line for each.",
            "short",
            (events("slmops_http_requests_total", "route, status", f'{_NO_PROBES},status=~"5..|429"'), "{{status}} {{route}}"),
            without_data="no errors",
        ),
        percentiles(
            "Time to first token",
            "Arrival to the first token, with the time in the queue.",
            "vllm:time_to_first_token_seconds",
            OF_MODELS,
        ),
        lines(
            "Running and waiting requests",
            "Running ones reach the number of slots, then others wait. What waits for long is rejected in the end.",
            "short",
            (f"sum by (model_name) (vllm:num_requests_running{{{OF_MODELS}}})", "{{model_name}} running"),
            (f"sum by (model_name) (vllm:num_requests_waiting{{{OF_MODELS}}})", "{{model_name}} waiting"),
        ),
        lines(
            "Tokens generated by model",
            "Tokens a second of all answers together.",
            "suffix: tok/s",
            (f"sum by (model_name) (rate(vllm:generation_tokens_total{{{OF_MODELS}}}{_RATE}))", "{{model_name}}"),
            stacked=True,
        ),
    ),
)
_MACHINE = Row(
    "Machine",
    (
        lines(
            "CPU",
            "Cores in use. The gateway has one event loop, so near 1 it is saturated; workers use the threads they were given.",
            "suffix: cores",
            (f"rate(process_cpu_seconds_total{{{DAEMONS}}}{_RATE})", "gateway {{instance}}"),
            (f"sum by (model_name) (rate(slmops_model_cpu_seconds_total{{{OF_MODELS}}}{_RATE}))", "{{model_name}}"),
        ),
        lines(
            "Memory",
            "Resident memory of the gateway and of the models' workers.",
            "bytes",
            (f"process_resident_memory_bytes{{{DAEMONS}}}", "gateway {{instance}}"),
            (f"sum by (model_name) (slmops_model_resident_bytes{{{OF_MODELS}}})", "{{model_name}}"),
            stacked=True,
        ),
        lines(
            "Memory charged and budget",
            "What the models in memory are charged, against what all together may take.",
            "bytes",
            (f"slmops_memory_charged_bytes{{{DAEMONS}}}", "charged {{instance}}"),
            (f"slmops_memory_budget_bytes{{{DAEMONS}}}", "budget {{instance}}"),
        ),
        lines(
            "Lag of the event loop",
            "How late the gateway's timers run. A second means that for a second no request was accepted and no token was sent.",
            "s",
            (
                f"histogram_quantile(0.99, sum by (instance, le) (rate(slmops_event_loop_lag_seconds_bucket{{{DAEMONS}}}[5m])))",
                "p99 {{instance}}",
            ),
            thresholds=((0.5, "bad"),),
        ),
        lines(
            "Worker deaths and failed loads",
            "Workers that ended by themselves or hung, and loads that failed on every provider. The log says why.",
            "short",
            (_increase("slmops_worker_deaths_total"), "{{model_name}} deaths"),
            (_increase("slmops_model_load_failures_total"), "{{model_name}} failed loads"),
        ),
        lines(
            "Open file descriptors",
            "Connections, workers and files of the gateway, as part of what the process may open.",
            "percentunit",
            (f"process_open_fds{{{DAEMONS}}} / process_max_fds{{{DAEMONS}}}", "{{instance}}"),
            thresholds=((0.8, "bad"),),
        ),
    ),
)

OVERVIEW = Dashboard(
    "slmops",
    "slmops: overview",
    "Whether the daemons are healthy: alerts, readiness, errors, latency, load, memory and disk.",
    (_NOW, _STATE, _REQUESTS_ROW, _MACHINE),
)
