"""The metrics under `slmops_`, which are our own: names, meanings, buckets. Data; seconds and bytes."""

from __future__ import annotations

from server.metrics.declaration import counter, gauge, histogram

# Of the whole daemon.
BUILD_INFO = gauge("slmops_build_info", "Always 1; the label is the version of slmops.", labels=("version",))
READY = gauge("slmops_ready", "Whether the default model answers, or would after a load: 1 or 0, as GET /ready.", labels=())
EVENT_LOOP_LAG = histogram(
    "slmops_event_loop_lag_seconds",
    "How late a timer of the gateway's event loop runs, measured once a second.",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    labels=(),
)
HTTP_REQUESTS = counter(
    "slmops_http_requests_total",
    "HTTP requests answered; the status is 0 where the client left before the answer began.",
    labels=("method", "route", "status"),
)
HTTP_SECONDS = histogram(
    "slmops_http_request_seconds",
    "Duration of HTTP requests, streams to their end.",
    (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600),
    labels=("route",),
)
MEMORY_BUDGET = gauge("slmops_memory_budget_bytes", "Memory that all models together may take.", labels=())
MEMORY_CHARGED = gauge("slmops_memory_charged_bytes", "What the models in memory are charged of the budget.", labels=())
LOADS_WAITING = gauge("slmops_model_loads_waiting", "Loads of models that wait for room in memory.", labels=())
OF_DAEMON = (
    *(BUILD_INFO, READY, EVENT_LOOP_LAG, HTTP_REQUESTS, HTTP_SECONDS),
    *(MEMORY_BUDGET, MEMORY_CHARGED, LOADS_WAITING),
)

# Of a version of a model, counted by the gateway: they outlive workers and unloads.
MODEL_LOADS = counter("slmops_model_loads_total", "Loads that succeeded.")
MODEL_LOAD_SECONDS = histogram(
    "slmops_model_load_seconds", "Duration of loads that succeeded.", (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80, 160)
)
MODEL_LOAD_FAILURES = counter("slmops_model_load_failures_total", "Loads that failed on every provider.")
PROVIDER_FALLBACKS = counter(
    "slmops_provider_fallbacks_total",
    "Execution providers that could not load a model, so that the next one was tried; exists from the first one on.",
    "provider",
)
WORKER_DEATHS = counter("slmops_worker_deaths_total", "Workers that ended by themselves, or were ended because they hung.")
MODEL_UNLOADS = counter(
    "slmops_model_unloads_total",
    "Models that left memory: expired (keep-alive), evicted (for another), asked (by an operator), replaced (by a reload), "
    "closed (at shutdown).",
    "reason",
)
MODEL_BROKEN = gauge(
    "slmops_model_broken", "1 while the model is not tried because it failed too often in a row, 0 while it is loaded and is not."
)
OF_LIFECYCLE = (
    *(MODEL_LOADS, MODEL_LOAD_SECONDS, MODEL_LOAD_FAILURES, PROVIDER_FALLBACKS),
    *(WORKER_DEATHS, MODEL_UNLOADS, MODEL_BROKEN),
)

# Of a loaded model. The counters start again with a worker or a load.
ENGINE_STEPS = counter("slmops_engine_steps_total", "Steps of the engine, each of which advances all running sequences.")
CPU_SECONDS = counter("slmops_model_cpu_seconds_total", "Processor time that the model's workers have used, all threads together.")
RESIDENT_BYTES = gauge("slmops_model_resident_bytes", "Resident memory of the model's workers.")
KV_BYTES = gauge("slmops_model_kv_bytes", "KV memory backed by pages, of running sequences and of cached prefixes.")
THREADS = gauge("slmops_model_threads", "Threads that the model's workers compute with, together.")
WORKER_RESTARTS = counter("slmops_worker_restarts_total", "Workers of the loaded model that died and were replaced.")
LEASES = gauge("slmops_model_leases", "Requests that hold the model in memory.")
SLOTS = gauge("slmops_model_slots", "Sequences decoded together at most, by all workers.")
REPLICAS = gauge("slmops_model_replicas", "Workers of the model.")
CHARGED_BYTES = gauge("slmops_model_charged_bytes", "What the memory budget counts for the model.")
OF_LOADED_MODELS = (
    *(ENGINE_STEPS, CPU_SECONDS, RESIDENT_BYTES, KV_BYTES, THREADS),
    *(WORKER_RESTARTS, LEASES, SLOTS, REPLICAS, CHARGED_BYTES),
)

# Of jobs. `job_id` is no label of a counter: those live as long as the daemon.
_JOB_LABELS = ("job_id", "kind")
JOB_SECONDS = histogram(
    "slmops_job_duration_seconds",
    "Time from a job's first start to its end, pauses included.",
    (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400),
    labels=("kind", "status"),
)
JOB_STARTS = counter("slmops_job_starts_total", "Processes started for jobs.", labels=("kind",))
JOB_FAILURES = counter("slmops_job_failures_total", "Jobs that failed, by the code of the cause.", labels=("kind", "code"))
JOBS = gauge("slmops_jobs", "Jobs in the home, by kind and status.", labels=("kind", "status"))
JOB_PROGRESS = gauge(
    "slmops_job_progress_ratio", "Done of the present stage of a job that has not ended, 0 to 1.", labels=_JOB_LABELS
)
JOB_PROGRESS_TIME = gauge(
    "slmops_job_progress_timestamp_seconds",
    "Unix time at which a running job last started, changed its stage or made a step.",
    labels=_JOB_LABELS,
)
JOB_STEPS_PER_SECOND = gauge("slmops_job_steps_per_second", "Steps a second that a job made lately.", labels=_JOB_LABELS)
JOB_METRIC = gauge(
    "slmops_job_metric", "The newest value of each of a job's figures: loss, learning_rate...", "metric", labels=_JOB_LABELS
)
OF_JOBS = (
    *(JOB_SECONDS, JOB_STARTS, JOB_FAILURES, JOBS),
    *(JOB_PROGRESS, JOB_PROGRESS_TIME, JOB_STEPS_PER_SECOND, JOB_METRIC),
)

# Of the disk, from the newest look at it; absent before the first one, just after the start.
_KIND = ("kind",)
DISK_USED = gauge("slmops_disk_used_bytes", "What the home takes of the disk, by kind.", labels=_KIND)
DISK_QUOTA = gauge(
    "slmops_disk_quota_bytes", "What a kind may take, and `total` the whole home; absent where there is no quota.", labels=_KIND
)
DISK_FREE = gauge("slmops_disk_free_bytes", "Free space of the home's file system.", labels=())
DISK_MIN_FREE = gauge("slmops_disk_min_free_bytes", "Free space that new work has to leave.", labels=())
DISK_COLLECTED = counter("slmops_disk_collected_bytes_total", "Bytes removed to make room, by kind.", labels=_KIND)
OF_DISK = (DISK_USED, DISK_QUOTA, DISK_FREE, DISK_MIN_FREE, DISK_COLLECTED)
