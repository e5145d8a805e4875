"""The judges judge rightly: servers, ratios, targets, and the page they are written into."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from . import plots
from .report import PAGE, between
from .results import Record, middle, ratio
from .servers import Knee, Limited, used, worst
from .target import BODY_BYTES, completion
from .targets import TARGETS, findings


def test_the_answer_has_its_size_and_a_usage() -> None:
    assert len(completion()) == BODY_BYTES
    assert b'"total_tokens":139' in completion()


def test_a_steady_client_at_the_rate_earns_no_refusal() -> None:
    server = Limited(rate=20)
    assert {server.take(100 + number / 20)[1] for number in range(1, 400)} == {200}
    assert server.report()["worst_second"] <= 21
    assert server.report()["used"] == pytest.approx(1.0)


def test_no_second_passes_the_enforced_rate_however_hard_it_is_pressed() -> None:
    server = Limited(rate=20)
    for number in range(10_000):
        server.take(100 + number / 1000)
    told = server.report()
    assert told["worst_second"] <= 22
    assert told["refused"] > 9_000
    assert told["accepted"] == sum(told["histogram"])


def test_tokens_are_charged_as_the_answer_tells_them() -> None:
    server = Limited(tokens=1000)
    statuses = [server.take(100 + number / 100)[1] for number in range(1, 1001)]
    spent = server.report()["tokens"]
    assert 429 in statuses
    assert 10_000 <= spent <= 12_000


def test_a_queueing_server_never_passes_its_capacity() -> None:
    server = Knee(capacity=4, service=0.1)
    ends = sorted(now + server.take(now)[0] for now in [100.0] * 400)
    assert ends[-1] - 100 == pytest.approx(400 * 0.1 / 4, rel=0.05)
    assert server.report()["in_flight_most"] == 400


def test_a_refusing_server_takes_what_fits() -> None:
    server = Knee(capacity=4, service=0.1, refuses=True)
    assert [server.take(100.0)[1] for _ in range(6)] == [200] * 4 + [429] * 2
    assert server.take(100.2)[1] == 200


def test_the_worst_stretch_slides() -> None:
    assert worst([0.0, 0.9, 1.0, 1.1, 1.95], 1.0) == 3
    assert worst([], 1.0) == 0
    assert used([0.0, 1.0, 2.0], [1.0, 1.0, 1.0], 1.0) == 1.0


def runs(name: str, *costs: float, kind: str = "floor") -> list[Record]:
    return [{"contestant": name, "kind": kind, "round": turn, "cpu_ms": cost} for turn, cost in enumerate(costs)]


def test_ratios_are_taken_within_a_round() -> None:
    together = runs("requests", 1.0, 2.0, 4.0) + runs("ails-batch", 0.5, 1.0, 2.0, kind="ours")
    assert ratio(together, "ails-batch", "requests", "cpu_ms") == 0.5
    together[0]["ok"] = False
    assert middle(together[:3], "cpu_ms") == 3.0


def test_a_target_nobody_measured_is_told_as_such() -> None:
    assert [finding for _, finding in findings({})] == [None] * len(TARGETS)


def test_a_peer_that_is_cheaper_misses_the_target() -> None:
    zero = runs("requests", 1.0) + runs("ails-batch", 0.7, kind="ours") + runs("flexllm", 0.6, kind="peer")
    finding = findings({"zero": zero})[0][1]
    assert finding is not None
    assert not finding.must


def test_the_page_has_its_markers_and_keeps_its_words() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for marker in ("setting", "targets", "figures"):
        page = between(page, marker, "new")
    assert page.count("\nnew\n") == 3
    assert "How it is measured" in page


def test_plots_are_well_formed(tmp_path: Path) -> None:
    for drawing in (
        plots.bars("a < b & c", [("one", 1.0, "ours"), ("two", 0.0, "peer")], line=0.5),
        plots.lines("each second", [("x", [1, 2, 3], "ours"), ("", [], "floor")], "seconds", 2),
    ):
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
