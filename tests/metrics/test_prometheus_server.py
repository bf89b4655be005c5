"""A real Prometheus server scrapes us over loopback HTTP, and its query interface gives the figures back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from urllib.parse import urlencode

import pytest
from prometheus_client import CollectorRegistry, MetricsHandler

from batchcore.records import OUTCOMES, REASONS
from pybatch.metrics import register

LIMIT_S = 60.0


def eventually(ask):
    """Ask another process, now and then, until its answer is true; return the answer."""
    between = threading.Event()
    give_up_at = time.monotonic() + LIMIT_S
    while not (answer := ask()):
        assert time.monotonic() < give_up_at, f"no answer within {LIMIT_S} s"
        between.wait(0.05)
    return answer


@pytest.fixture(scope="module")
def scraped_registry():
    """One registry for the module: a server takes five seconds to find its target."""
    return CollectorRegistry()


@pytest.fixture(scope="module")
def target(scraped_registry):
    """Serve the registry; return the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(scraped_registry))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(LIMIT_S)


@pytest.fixture(scope="module")
def query(target, tmp_path_factory):
    """Run a Prometheus server that scrapes the registry; return a function that asks it."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("needs a Prometheus server: install Debian's prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "pybatch", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    command = [
        prometheus,
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=tsdb",
        "--web.listen-address=127.0.0.1:0",
    ]
    log = folder / "log"
    with log.open("w") as output, subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as server:

        def address():
            assert server.poll() is None, log.read_text()
            return re.search(r"Listening on.* address=(127\.0\.0\.1:\d+)", log.read_text())

        def query(expression):
            """Return the value of each series that matches, by its labels without those of the scrape."""
            with closing(HTTPConnection(listening[1], timeout=LIMIT_S)) as connection:
                connection.request("GET", f"/api/v1/query?{urlencode({'query': expression})}")
                response = connection.getresponse()
                if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                    return {}  # it listens before it is ready
                answer = json.load(response)
            assert answer["status"] == "success", answer
            own = {("job", "pybatch"), ("instance", target)}
            matches = answer["data"]["result"]
            return {frozenset(match["metric"].items() - own): float(match["value"][1]) for match in matches}

        try:
            listening = eventually(address)
            eventually(lambda: query("up == 1"))
            yield query
        finally:
            server.kill()


def series(name, **labels):
    return frozenset({"__name__": name, **labels}.items())


def test_a_prometheus_server_reads_every_series_of_a_source(scraped_registry, hand_made, query):
    source = hand_made(last_progress_at_ns=time.monotonic_ns())
    register(scraped_registry, source, "all")
    shown = eventually(lambda: query('{scheduler="all"}'))
    assert set(shown) == {
        series(sample.name, **sample.labels)
        for family in scraped_registry.collect()
        for sample in family.samples
        if sample.labels["scheduler"] == "all"
    }
    assert shown[series("pybatch_requests_total", scheduler="all", outcome="completed")] == 5
    assert shown[series("pybatch_queue_delay_seconds_bucket", scheduler="all", le="0.001")] == 5
    assert shown[series("pybatch_max_wait_seconds", scheduler="all")] == 0.005


def test_a_prometheus_server_computes_what_dashboards_ask(scraped_registry, hand_made, query):
    source = hand_made(last_progress_at_ns=time.monotonic_ns() - 600 * 10**9)
    register(scraped_registry, source, "stalled")
    eventually(lambda: query('{scheduler="stalled"}'))
    [stalled_s] = query('time() - pybatch_last_progress_timestamp_seconds{scheduler="stalled"}').values()
    assert 599 < stalled_s < 600 + LIMIT_S
    [median_s] = query('histogram_quantile(0.5, pybatch_queue_delay_seconds_bucket{scheduler="stalled"})').values()
    assert 0 < median_s <= 0.0001
    # What is there from the first scrape has a rate, even where nothing ever happened.
    rates = eventually(lambda: query('rate(pybatch_requests_total{scheduler="stalled"}[1m])'))
    assert rates == {frozenset({"scheduler": "stalled", "outcome": outcome}.items()): 0 for outcome in OUTCOMES}


def test_a_prometheus_server_watches_a_scheduler_until_it_is_shut_down(scraped_registry, scheduler_of, query):
    scheduler = scheduler_of(
        lambda items: [-item for item in items], registry=scraped_registry, name="negate", max_batch_size=8
    )
    assert list(scheduler.map(range(100))) == [-item for item in range(100)]
    scheduler.drain()
    eventually(lambda: query('pybatch_requests_total{scheduler="negate", outcome="completed"} == 100'))
    shown = query('{scheduler="negate"}')
    assert shown[series("pybatch_batch_size_sum", scheduler="negate")] == 100
    assert shown[series("pybatch_queue_delay_seconds_count", scheduler="negate")] == 100
    assert shown[series("pybatch_max_batch_size", scheduler="negate")] == 8
    assert shown[series("pybatch_policy_info", scheduler="negate", policy="adaptive")] == 1
    batches = query('pybatch_batches_total{scheduler="negate"}')
    assert {dict(labels)["reason"] for labels in batches} == set(REASONS)
    assert sum(batches.values()) == shown[series("pybatch_batch_size_count", scheduler="negate")]
    [idle_s] = query('time() - pybatch_last_progress_timestamp_seconds{scheduler="negate"}').values()
    assert abs(idle_s) < LIMIT_S
    scheduler.shutdown()
    eventually(lambda: not query('{scheduler="negate"}'))
