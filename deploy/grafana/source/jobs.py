"""Jobs and disk: what is worked on, what failed, and what takes the space."""

from __future__ import annotations

from deploy.grafana.source.dashboard import DAEMONS, Dashboard, Row, events
from deploy.grafana.source.panel import lines, stat

_RATE = "[$__rate_interval]"
_JOB = "{{kind}} {{job_id}}"
_NONE = "no jobs"


def _count(status: str) -> str:
    return f'sum(slmops_jobs{{{DAEMONS},status="{status}"}}) or vector(0)'


_NOW = Row(
    "Now",
    (
        stat("Running", "Jobs that have a process now.", _count("running"), "short"),
        stat("Queued", "Jobs that wait for their turn, or for a job that they need.", _count("queued"), "short"),
        stat(
            "Interrupted",
            "Jobs whose process or daemon ended; they are queued again by themselves.",
            _count("interrupted"),
            "short",
            thresholds=((1, "warn"),),
        ),
        stat(
            "Failed in a day",
            "Jobs that failed in the last 24 hours. `slmops jobs list --status failed` shows them.",
            f"sum({events('slmops_job_failures_total', 'kind', DAEMONS, '24h')}) or vector(0)",
            "short",
            thresholds=((0.5, "warn"),),
        ),
        stat(
            "Longest without progress",
            "Of the running jobs, the one that has made no step for longest.",
            f"max(time() - slmops_job_progress_timestamp_seconds{{{DAEMONS}}})",
            "s",
            thresholds=((900, "warn"), (3600, "bad")),
            without_data="no job runs",
        ),
        stat(
            "Disk left",
            "Free space of the home's disk, on the daemon that has least.",
            f"min(slmops_disk_free_bytes{{{DAEMONS}}})",
            "bytes",
            thresholds=((0, "bad"), (2e9, "warn"), (10e9, "good")),
        ),
    ),
)
_JOBS = Row(
    "Jobs",
    (
        lines(
            "Progress",
            "Done of the present stage of each job that has not ended. A new stage begins at 0.",
            "percentunit",
            (f"slmops_job_progress_ratio{{{DAEMONS}}}", _JOB),
            most=1,
            without_data=_NONE,
        ),
        lines(
            "Steps",
            "Steps a second of each running job, in its own unit: examples, batches, bytes...",
            "suffix: steps/s",
            (f"slmops_job_steps_per_second{{{DAEMONS}}}", _JOB),
            without_data=_NONE,
        ),
        lines(
            "Time without progress",
            "How long each running job has made no step. Grows and falls by steps; a straight line up is a job that hangs.",
            "s",
            (f"time() - slmops_job_progress_timestamp_seconds{{{DAEMONS}}}", _JOB),
            thresholds=((3600, "bad"),),
            without_data=_NONE,
        ),
        lines(
            "Loss",
            "The newest loss of each training, on training and on held-out data.",
            "short",
            (f'slmops_job_metric{{{DAEMONS},metric=~"loss|eval_loss"}}', f"{{{{metric}}}} {_JOB}"),
            without_data="no training runs",
        ),
        lines(
            "Other figures",
            "The newest value of what else jobs report: learning rate, accuracy, tokens a second...",
            "short",
            (f'slmops_job_metric{{{DAEMONS},metric!~"loss|eval_loss"}}', f"{{{{metric}}}} {_JOB}"),
            without_data=_NONE,
        ),
        lines(
            "Jobs by status",
            "Jobs that the home holds, ended ones included until they are removed.",
            "short",
            (f"sum by (status) (slmops_jobs{{{DAEMONS}}})", "{{status}}"),
            without_data=_NONE,
        ),
        lines(
            "Starts",
            "Processes started for jobs. A job that was interrupted or retried starts again.",
            "short",
            (f"sum by (kind) (increase(slmops_job_starts_total{{{DAEMONS}}}{_RATE}))", "{{kind}}"),
            without_data=_NONE,
        ),
        lines(
            "Failures by cause",
            "Jobs that failed, by kind and code. `slmops jobs show` has the cause and what to do.",
            "short",
            (events("slmops_job_failures_total", "kind, code", DAEMONS), "{{kind}} {{code}}"),
            without_data="no failures",
        ),
        lines(
            "Duration, median",
            "First start to end of the jobs that ended in the last day, pauses included.",
            "s",
            (
                f"histogram_quantile(0.5, sum by (kind, status, le) (rate(slmops_job_duration_seconds_bucket{{{DAEMONS}}}[24h])))",
                "{{kind}} {{status}}",
            ),
            without_data="no job ended",
        ),
    ),
)
_DISK = Row(
    "Disk",
    (
        lines(
            "Disk use by kind",
            "What the home holds: versions of models, checkpoints, uploads, jobs, downloads, caches, exports, backups.",
            "bytes",
            (f"sum by (kind) (slmops_disk_used_bytes{{{DAEMONS}}})", "{{kind}}"),
            stacked=True,
        ),
        lines(
            "Free space",
            "Left on the home's disk, which other programs fill, too. Work that would leave less than the lower line is refused.",
            "bytes",
            (f"slmops_disk_free_bytes{{{DAEMONS}}}", "free {{instance}}"),
            (f"slmops_disk_min_free_bytes{{{DAEMONS}}}", "to be left free {{instance}}"),
        ),
        lines(
            "Quotas",
            "Part of each quota that is taken. Kinds without a quota have no line.",
            "percentunit",
            (f"slmops_disk_used_bytes{{{DAEMONS}}} / (slmops_disk_quota_bytes{{{DAEMONS}}} > 0)", "{{kind}} {{instance}}"),
            (
                f"sum by (job, instance) (slmops_disk_used_bytes{{{DAEMONS}}}) "
                f'/ on (job, instance) (slmops_disk_quota_bytes{{{DAEMONS},kind="total"}} > 0)',
                "home {{instance}}",
            ),
            thresholds=((0.9, "bad"),),
            without_data="no quotas",
        ),
        lines(
            "Collected",
            "Bytes that were removed to make room, by kind. What is used is never removed.",
            "bytes",
            (f"sum by (kind) (increase(slmops_disk_collected_bytes_total{{{DAEMONS}}}{_RATE}))", "{{kind}}"),
            without_data="nothing",
        ),
    ),
)

JOBS = Dashboard(
    "slmops-jobs",
    "slmops: jobs and disk",
    "Progress, failures and duration of jobs; what takes the disk's space.",
    (_NOW, _JOBS, _DISK),
)
