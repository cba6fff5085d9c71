"""Counters of this node for Prometheus. Counted on the loop as plain integers, collected when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from router.runner import JobMoved
from router.wire import NodeInfo


class Metrics:
    """Listens to moves. ``text`` imports prometheus-client on first use, so that a start doesn't pay for it."""

    def __init__(self, info: Callable[[], NodeInfo]) -> None:
        self._info = info
        self._ended: Counter[tuple[str, str]] = Counter()
        self._accepted = 0
        self._tokens = 0
        self._prompt_tokens = 0
        self._queued_s = 0.0
        self._total_s = 0.0

    def moved(self, event: JobMoved) -> None:
        """Count new and ended jobs."""
        job = event.job
        if event.old is None:
            self._accepted += 1
        elif not job.state.live:
            self._ended[job.state, job.error.code if job.error else "ok"] += 1
            self._queued_s += job.queued_s
            if job.receipt is not None:
                self._tokens += job.receipt.completion_tokens or 0
                self._prompt_tokens += job.receipt.prompt_tokens or 0
                self._total_s += job.receipt.total_s or 0.0

    def collect(self) -> Iterator[object]:
        """The metric families, as prometheus-client's collectors give them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        info = self._info()
        yield CounterMetricFamily("quorum_jobs_accepted", "Jobs accepted.", value=self._accepted)
        ended = CounterMetricFamily("quorum_jobs_ended", "Jobs ended, by state and code.", labels=["state", "code"])
        for (state, code), count in self._ended.items():
            ended.add_metric([state, code], count)
        yield ended
        yield CounterMetricFamily("quorum_completion_tokens", "Tokens generated.", value=self._tokens)
        yield CounterMetricFamily("quorum_prompt_tokens", "Prompt tokens read.", value=self._prompt_tokens)
        yield CounterMetricFamily("quorum_queued_seconds", "Seconds jobs waited to start.", value=self._queued_s)
        yield CounterMetricFamily("quorum_job_seconds", "Seconds from acceptance to the end.", value=self._total_s)
        yield GaugeMetricFamily("quorum_jobs_running", "Jobs running now.", value=info.running)
        yield GaugeMetricFamily("quorum_jobs_waiting", "Jobs waiting now.", value=info.waiting)
        yield GaugeMetricFamily("quorum_paused", "1 while paused or draining.", value=not info.mode.takes_work)

    def text(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # type: ignore[arg-type] # a collector by its shape, not by its class
        return generate_latest(registry), CONTENT_TYPE_LATEST
