"""What the scorer says of itself, for Prometheus; a registry of its own, for tests have several."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from torchrec_mm.item_vectors.live.reader import IndexReader

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CANDIDATES = (1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


class Measures:
    """Of one scorer; names begin with ``torchrec_mm_``."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.answers = Counter(
            "torchrec_mm_answers", "Answers by HTTP status", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "torchrec_mm_request_seconds",
            "From a whole body to its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "torchrec_mm_batch_seconds", "Scoring one batch", buckets=SECONDS, registry=registry
        )
        self.batch_candidates = Histogram(
            "torchrec_mm_batch_candidates",
            "Candidates of one batch",
            buckets=CANDIDATES,
            registry=registry,
        )
        self.queued = Gauge(
            "torchrec_mm_queued_candidates", "Candidates that wait", registry=registry
        )
        self.gone = Counter(
            "torchrec_mm_gone_clients", "Requests whose client did not wait", registry=registry
        )
        self.loads = Counter(
            "torchrec_mm_loads",
            "Checkpoints loaded, by what came of it",
            ["outcome"],
            registry=registry,
        )
        self.checkpoint_step = Gauge(
            "torchrec_mm_checkpoint_step", "Training steps of what scores", registry=registry
        )
        self.deltas = Counter(
            "torchrec_mm_deltas", "Deltas, by what came of them", ["outcome"], registry=registry
        )
        self.delta = Gauge(
            "torchrec_mm_delta", "Number of the last delta in what scores", registry=registry
        )
        self.age_s = Gauge(
            "torchrec_mm_age_seconds", "Since what scores was published", registry=registry
        )
        self.logged = Counter(
            "torchrec_mm_logged_requests",
            "Requests of the log, written to it, or dropped as too many waited",
            ["outcome"],
            registry=registry,
        )
        self.log_failures = Counter(
            "torchrec_mm_log_failures", "Files of the log not written", registry=registry
        )
        self.log_bytes = Gauge(
            "torchrec_mm_log_waiting_bytes", "Not in a file of the log yet", registry=registry
        )
        self.parity = Gauge(
            "torchrec_mm_parity_difference",
            "Largest of the last comparison between a probability answered and apps.predict's",
            registry=registry,
        )
        self.parity_requests = Counter(
            "torchrec_mm_parity_requests",
            "Requests scored again by apps.predict, or why not",
            ["outcome"],
            registry=registry,
        )
        self.behaviours = Counter(
            "torchrec_mm_behaviours",
            "Behaviours of clients: added, known already, older than what is kept, or deleted",
            ["outcome"],
            registry=registry,
        )

    def watch_index(self, index: IndexReader) -> None:
        """Of a live index, asked whenever the page is."""
        for name, said, ask in (
            (
                "coverage",
                "Share of the items asked for that had one",
                lambda: index.counts.coverage,
            ),
            ("staleness_seconds", "Age of the newest event", lambda: index.staleness_s),
            ("overlay", "Items changed since the snapshot", lambda: len(index.vectors.overlay)),
            ("snapshot", "Version of the snapshot", lambda: index.version),
        ):
            gauge = Gauge(f"torchrec_mm_vector_{name}", said, registry=self.registry)
            gauge.set_function(ask)

    def observe_batch(self, requests: int, candidates: int, seconds: float) -> None:
        """Of a batch that was scored."""
        self.batch_seconds.observe(seconds)
        self.batch_candidates.observe(candidates)

    def page(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
