"""What the end of a job's process means for the job. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from jobs.attempt import End
from jobs.job import Failure, JobStatus, Outcome
from jobs.messages import Ended, Failed, Finished, Refused
from jobs.task import StopReason


@dataclass(frozen=True, slots=True)
class Verdict:
    """to: where the job moves. INTERRUPTED: it is to be tried again."""

    to: JobStatus
    outcome: Outcome | None = None
    failure: Failure | None = None


def judge(end: End, asked: StopReason | None, num_failures: int, max_attempts: int, is_closing: bool) -> Verdict:
    """asked: why its end was asked for. num_failures: attempts before it that failed, without a checkpoint since.

    1. Finished work is finished, whatever was asked meanwhile.
    2. What was asked to end has ended: cancelled, paused, or interrupted when the daemon ends.
    3. What cannot pass has failed.
    4. What may pass, and a process that was killed, is tried again until max_attempts.
    """
    match end.last:
        case Finished(outcome=outcome):
            return Verdict(JobStatus.SUCCEEDED, outcome=outcome)
        case _ if asked is StopReason.CANCEL:
            return Verdict(JobStatus.CANCELLED)
        case _ if asked is StopReason.PAUSE and (isinstance(end.last, Ended) or end.last is None):
            return Verdict(JobStatus.INTERRUPTED if is_closing else JobStatus.PAUSED)
        case Refused(problems=problems):
            return Verdict(JobStatus.FAILED, failure=Failure("invalid_job", "; ".join(map(str, problems[:5]))))
        case Failed(code=code, message=message, may_pass=may_pass):
            failure, may_pass = Failure(code, message), may_pass
        case _:
            failure, may_pass = Failure("process_ended", _told(end.exit_code)), end.exit_code < 0
    may_retry = may_pass and num_failures + 1 < max_attempts
    return Verdict(JobStatus.INTERRUPTED if may_retry else JobStatus.FAILED, failure=failure)


def _told(exit_code: int) -> str:
    if exit_code >= 0:
        return f"The job's process ended with exit code {exit_code}; the job's log has the details."
    name = signal.Signals(-exit_code).name
    hint = " If this machine ran out of memory, lower batch_size or max_length." if -exit_code == signal.SIGKILL else ""
    return f"The job's process was ended by {name}.{hint}"
