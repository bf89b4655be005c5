"""What a scrape shows, of whom, and for how long."""

from __future__ import annotations

import doctest
import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from batchcore.records import OUTCOMES, REASONS, Histogram
from pybatch.metrics import collector, register, unregister

FAMILIES = {
    "pybatch_requests": "counter",
    "pybatch_batches": "counter",
    "pybatch_elements": "counter",
    "pybatch_batch_size": "histogram",
    "pybatch_queue_delay_seconds": "histogram",
    "pybatch_service_seconds": "histogram",
    "pybatch_queue_length": "gauge",
    "pybatch_in_flight_batches": "gauge",
    "pybatch_last_progress_timestamp_seconds": "gauge",
    "pybatch_keys": "gauge",
    "pybatch_padding_ratio": "gauge",
    "pybatch_max_batch_size": "gauge",
    "pybatch_max_queue_size": "gauge",
    "pybatch_max_concurrent_batches": "gauge",
    "pybatch_max_wait_seconds": "gauge",
    "pybatch_max_latency_seconds": "gauge",
    "pybatch_policy": "info",
}


def shown(registry):
    """Every sample: name and labels but for the scheduler's, by scheduler."""
    result = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = dict(sample.labels)
            series = result.setdefault(labels.pop("scheduler"), {})
            series[sample.name, *sorted(labels.values())] = sample.value
    return result


def test_a_scrape_shows_every_figure_of_a_source(registry, hand_made):
    source = hand_made()
    register(registry, source, "embed")
    assert shown(registry) == {
        "embed": {
            **{("pybatch_requests_total", outcome): 0 for outcome in OUTCOMES},
            ("pybatch_requests_total", "completed"): 5,
            ("pybatch_requests_total", "rejected"): 1,
            **{("pybatch_batches_total", reason): 0 for reason in REASONS},
            ("pybatch_batches_total", "full"): 1,
            ("pybatch_batches_total", "window"): 2,
            ("pybatch_elements_total", "item"): 6,
            ("pybatch_elements_total", "padding"): 2,
            ("pybatch_batch_size_bucket", "1.0"): 1,
            ("pybatch_batch_size_bucket", "2.0"): 2,
            ("pybatch_batch_size_bucket", "4.0"): 3,
            ("pybatch_batch_size_bucket", "+Inf"): 3,
            ("pybatch_batch_size_count",): 3,
            ("pybatch_batch_size_sum",): 6,
            ("pybatch_queue_delay_seconds_bucket", "0.0001"): 3,
            ("pybatch_queue_delay_seconds_bucket", "0.001"): 5,
            ("pybatch_queue_delay_seconds_bucket", "+Inf"): 6,
            ("pybatch_queue_delay_seconds_count",): 6,
            ("pybatch_queue_delay_seconds_sum",): 0.0075,
            ("pybatch_service_seconds_bucket", "0.0001"): 0,
            ("pybatch_service_seconds_bucket", "0.001"): 2,
            ("pybatch_service_seconds_bucket", "+Inf"): 2,
            ("pybatch_service_seconds_count",): 2,
            ("pybatch_service_seconds_sum",): 0.00125,
            ("pybatch_queue_length",): 2,
            ("pybatch_in_flight_batches",): 1,
            ("pybatch_keys",): 1,
            ("pybatch_padding_ratio",): 0.25,
            ("pybatch_max_batch_size",): 4,
            ("pybatch_max_queue_size",): 100,
            ("pybatch_max_concurrent_batches",): 2,
            ("pybatch_max_wait_seconds",): 0.005,
            ("pybatch_policy_info", "fixed"): 1,
        }
    }


@pytest.mark.parametrize("option", ["max_wait", "max_latency"])
def test_a_limit_is_absent_where_there_is_none_and_zero_where_it_is_zero(registry, hand_made, option):
    none, zero = hand_made(**{f"{option}_ns": None}), hand_made(**{f"{option}_ns": 0})
    register(registry, none, "none")
    register(registry, zero, "zero")
    series = (f"pybatch_{option}_seconds",)
    assert series not in shown(registry)["none"]
    assert shown(registry)["zero"][series] == 0


def test_last_progress_is_shown_in_unix_time(registry, hand_made):
    ten_minutes_ns = 600 * 10**9
    source = hand_made(last_progress_at_ns=time.monotonic_ns() - ten_minutes_ns)
    register(registry, source, "embed")
    before = time.time()
    value = shown(registry)["embed"]["pybatch_last_progress_timestamp_seconds",]
    # A second either way, because the wall clock may be set while we look.
    assert before - 601 < value < time.time() - 599


def test_last_progress_is_absent_before_the_first_batch(registry, hand_made):
    source = hand_made(last_progress_at_ns=None)
    register(registry, source, "embed")
    assert ("pybatch_last_progress_timestamp_seconds",) not in shown(registry)["embed"]


def test_every_scrape_reads_the_figures_of_its_moment(registry, hand_made):
    source = hand_made(queued=1)
    register(registry, source, "embed")
    assert shown(registry)["embed"]["pybatch_queue_length",] == 1
    source.told = hand_made(queued=7).told
    assert shown(registry)["embed"]["pybatch_queue_length",] == 7


def test_a_scrape_asks_each_source_once_so_that_its_figures_agree(registry, hand_made):
    source, asked = hand_made(), []

    class Counting:
        def stats(self):
            asked.append(1)
            return source.stats()

    counting = Counting()
    register(registry, counting, "embed")
    assert not asked, "registering scrapes"
    generate_latest(registry)
    assert len(asked) == 1


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=32))
def test_a_histogram_is_cumulative_and_ends_with_the_count(counts):
    histogram = Histogram(tuple(range(1, len(counts))), tuple(counts), sum(counts))
    family = collector._histogram("h", "Text.", [("embed", histogram)], 1)
    buckets = [sample.value for sample in family.samples if sample.name == "h_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == histogram.count
    assert [sample.value for sample in family.samples if sample.name == "h_count"] == [histogram.count]


def test_the_exposition_parses_back_to_the_same_types_and_values(registry, hand_made):
    source = hand_made(last_progress_at_ns=time.monotonic_ns())
    register(registry, source, 'em"bed\n\\ naïve')
    families = list(parse_openmetrics(generate_openmetrics(registry).decode()))
    assert {family.name: family.type for family in families} == FAMILIES
    assert {sample.labels["scheduler"] for family in families for sample in family.samples} == {'em"bed\n\\ naïve'}
    # The older text format knows no info type: there it is a gauge that is 1.
    text = {family.name: family.type for family in parse(generate_latest(registry).decode())}
    assert text["pybatch_policy_info"] == "gauge"


def test_promtool_finds_nothing_to_complain_about(registry, hand_made):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: install Debian's prometheus")
    source = hand_made(last_progress_at_ns=time.monotonic_ns(), max_latency_ns=10**9)
    register(registry, source, "embed")
    check = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(registry), capture_output=True, timeout=60, check=False
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_sources_of_one_registry_are_told_apart_by_their_label(registry, hand_made):
    few, many = hand_made(queued=1), hand_made(queued=9)
    register(registry, few, "few")
    register(registry, many, "many")
    assert {name: series["pybatch_queue_length",] for name, series in shown(registry).items()} == {"few": 1, "many": 9}


def test_the_same_name_is_numbered_from_two(registry, hand_made):
    sources = [hand_made() for _ in range(3)]
    assert [register(registry, source, "x") for source in sources] == ["x", "x-2", "x-3"]
    assert set(shown(registry)) == {"x", "x-2", "x-3"}


def test_a_number_that_somebody_chose_is_skipped(registry, hand_made):
    sources = [hand_made() for _ in range(4)]
    wanted = ["x-2", "x", "x", "x-2"]
    assert [register(registry, *each) for each in zip(sources, wanted, strict=True)] == ["x-2", "x", "x-3", "x-2-2"]


def test_registries_do_not_share_names_or_sources(hand_made):
    here, there = CollectorRegistry(), CollectorRegistry()
    first, second = hand_made(queued=1), hand_made(queued=2)
    assert register(here, first, "x") == register(there, second, "x") == "x"
    assert shown(here)["x"]["pybatch_queue_length",] == 1
    assert shown(there)["x"]["pybatch_queue_length",] == 2


def test_no_registry_means_the_default_one(hand_made):
    source = hand_made()
    name = register(None, source, "in the default registry")
    try:
        assert f'scheduler="{name}"' in generate_latest(prometheus_client.REGISTRY).decode()
    finally:
        unregister(None, source)
    assert f'scheduler="{name}"' not in generate_latest(prometheus_client.REGISTRY).decode()


def test_importing_registers_nothing():
    script = "import prometheus_client, pybatch.metrics; print(prometheus_client.generate_latest().decode())"
    scrape = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "python_info" in scrape.stdout
    assert "pybatch" not in scrape.stdout


def test_what_is_unregistered_is_gone_and_its_name_is_free(registry, hand_made):
    first, second, third = hand_made(), hand_made(), hand_made()
    register(registry, first, "x")
    register(registry, second, "x")
    unregister(registry, first)
    assert set(shown(registry)) == {"x-2"}
    assert register(registry, third, "x") == "x"


def test_what_is_collected_is_gone_and_its_name_is_free(registry, hand_made):
    first = hand_made()
    register(registry, first, "x")
    del first
    gc.collect()
    assert shown(registry) == {}
    second = hand_made()
    assert register(registry, second, "x") == "x"


def test_neither_a_registry_nor_a_scrape_keeps_a_source_alive(registry, hand_made):
    source = hand_made()
    alive = weakref.ref(source)
    register(registry, source, "x")
    families = list(registry.collect())
    del source
    gc.collect()
    assert families
    assert alive() is None


def test_sources_that_come_and_go_leave_nothing_behind(registry, hand_made):
    for _ in range(100):
        register(registry, hand_made(), "x")
    gc.collect()
    assert collector._collectors[registry]._sources == {}


def test_a_registry_that_is_dropped_takes_its_collector_along(hand_made):
    registry, source = CollectorRegistry(), hand_made()
    register(registry, source, "x")
    alive = weakref.ref(registry)
    del registry
    gc.collect()
    assert alive() is None


def test_without_sources_the_families_stay_without_samples(registry, hand_made):
    source = hand_made()
    register(registry, source, "x")
    unregister(registry, source)
    assert {family.name: family.type for family in registry.collect()} == FAMILIES
    assert shown(registry) == {}


def test_unregistering_what_is_not_registered_does_nothing(registry, hand_made):
    source, stranger = hand_made(), hand_made()
    unregister(registry, stranger)
    register(registry, source, "x")
    unregister(registry, stranger)
    assert set(shown(registry)) == {"x"}
    unregister(registry, source)
    unregister(registry, source)
    assert shown(registry) == {}


def test_a_source_that_raises_is_left_out_with_a_warning_and_the_others_are_shown(registry, hand_made, caplog):
    class Broken:
        def stats(self):
            raise RuntimeError("no figures today")

    broken, sound = Broken(), hand_made()
    register(registry, broken, "broken")
    register(registry, sound, "sound")
    with caplog.at_level(logging.WARNING, logger="pybatch"):
        assert set(shown(registry)) == {"sound"}
    [record] = caplog.records
    assert "'broken'" in record.getMessage()
    assert str(record.exc_info[1]) == "no figures today"


@pytest.mark.parametrize("bad", ["default", 1, object()])
def test_what_is_no_registry_is_a_type_error(hand_made, bad):
    source = hand_made()
    with pytest.raises(TypeError, match=r"^registry must be a prometheus_client\.CollectorRegistry or None, got "):
        register(bad, source, "x")
    with pytest.raises(TypeError, match=r"^registry must be "):
        unregister(bad, source)


def test_a_source_that_cannot_be_weakly_referenced_is_a_type_error(registry):
    class Slotted:
        __slots__ = ()

        def stats(self): ...

    with pytest.raises(TypeError, match="weak reference"):
        register(registry, Slotted(), "x")
    assert shown(registry) == {}


def test_a_name_of_ours_that_is_taken_is_a_value_error_until_it_is_free(registry, hand_made):
    theirs = Counter("pybatch_requests", "Not ours.", registry=registry)
    source = hand_made()
    with pytest.raises(ValueError, match="pybatch_requests"):
        register(registry, source, "x")
    registry.unregister(theirs)
    assert register(registry, source, "x") == "x"
    assert set(shown(registry)) == {"x"}


def test_a_multiprocess_collector_in_the_same_registry_does_not_mind(registry, hand_made, tmp_path):
    MultiProcessCollector(registry, path=str(tmp_path))
    source = hand_made()
    register(registry, source, "x")
    assert 'pybatch_queue_length{scheduler="x"} 2.0' in generate_latest(registry).decode()


def test_multiprocess_mode_shows_this_process_and_merges_nothing_of_ours(tmp_path):
    script = """if True:
        from prometheus_client import Counter, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector
        from pybatch.metrics import register

        class Source:
            def stats(self):
                print("asked")
                raise LookupError

        source, merged = Source(), CollectorRegistry()
        register(None, source, "x")
        Counter("theirs", "Written to the value files.").inc()
        MultiProcessCollector(merged)
        print(generate_latest(merged).decode())
        generate_latest()
    """
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    scrapes = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "theirs_total 1.0" in scrapes.stdout
    assert "pybatch" not in scrapes.stdout
    assert scrapes.stdout.endswith("\nasked\n")


@pytest.fixture
def hasty_threads():
    """Switch threads as often as the interpreter can, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_names_stay_unique_while_threads_register_unregister_and_scrape(registry, hand_made):
    threads, rounds = 4, 50
    start = threading.Barrier(threads + 1)

    def come_and_go():
        start.wait(10)
        mine = {}
        for _ in range(rounds):
            passing, staying = hand_made(), hand_made()
            register(registry, passing, "x")
            mine[register(registry, staying, "x")] = staying
            unregister(registry, passing)
        return mine

    with ThreadPoolExecutor(threads) as pool:
        coming = [pool.submit(come_and_go) for _ in range(threads)]
        start.wait(10)
        for _ in range(rounds // 10):
            shown(registry)
        staying = [future.result(60) for future in coming]
    names = set().union(*staying)
    assert len(names) == threads * rounds
    assert set(shown(registry)) == names


def test_a_finaliser_may_unregister_while_another_source_registers(hand_made):
    class Finalised:
        def stats(self): ...

        def __del__(self):
            unregister(elsewhere, self)

    class Registry(CollectorRegistry):
        def register(self, collector):
            last.clear()
            super().register(collector)

    registry, elsewhere, last, source = Registry(), CollectorRegistry(), [Finalised()], hand_made()
    register(elsewhere, last[0], "x")
    # In a thread, so that a deadlock fails the test rather than hangs it.
    registering = threading.Thread(target=register, args=(registry, source, "x"), daemon=True)
    registering.start()
    registering.join(10)
    assert not registering.is_alive()
    assert set(shown(registry)) == {"x"}


def test_a_finaliser_may_unregister_while_a_scrape_lists_the_sources(registry, hand_made):
    sources = [hand_made() for _ in range(100)]
    for source in sources:
        register(registry, source, "x")

    def finalise(phase, info):
        if sources:
            unregister(registry, sources.pop())

    thresholds = gc.get_threshold()
    gc.callbacks.append(finalise)
    gc.collect()  # empties the lists of free tuples, so that the next tuples can set off a collection
    gc.set_threshold(1)
    try:
        list(registry.collect())
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(finalise)
    assert len(shown(registry)) == len(sources) < 100


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(collector).failed == 0
