"""What Prometheus sees; never a prompt."""

from __future__ import annotations

from router.errors import failure
from router.jobs import Job
from router.metrics import Metrics
from router.runner import JobMoved
from router.states import JobState, NodeMode
from router.wire import NodeInfo
from tests.fakes import make_job
from tests.router.test_rates import receipt


def info() -> NodeInfo:
    return NodeInfo(
        id="n", name="n", version="1", mode=NodeMode.PAUSED, address="", port=1, started_at=0.0, running=2, waiting=3
    )


def ended(state: JobState, code: str = "") -> Job:
    job = make_job(1, state=state, body=b"canary")
    job.receipt = receipt(4.0)
    job.error = failure(code, "no") if code else None
    return job


def test_jobs_are_counted_by_how_they_ended() -> None:
    metrics = Metrics(info)
    for job in (ended(JobState.DONE), ended(JobState.DONE), ended(JobState.FAILED, "engine_failed")):
        metrics.moved(JobMoved(job, None))
        metrics.moved(JobMoved(job, JobState.WORKING))
    text, kind = metrics.text()
    assert "text/plain" in kind
    lines = text.decode().splitlines()
    assert "quorum_jobs_accepted_total 3.0" in lines
    assert 'quorum_jobs_ended_total{code="ok",state="done"} 2.0' in lines
    assert 'quorum_jobs_ended_total{code="engine_failed",state="failed"} 1.0' in lines
    assert "quorum_job_seconds_total 12.0" in lines
    assert "quorum_jobs_running 2.0" in lines
    assert "quorum_paused 1.0" in lines
    assert b"canary" not in text
