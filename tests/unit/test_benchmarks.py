"""The pure parts of the benchmark: what it makes of what it has measured."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.arguments import parse_arguments
from benchmarks.charts import Chart, bars, lines
from benchmarks.document import BEGIN, END, charts, ensure_markers, insert, publish
from benchmarks.loads import CELLS, STRANGER, Load, cell
from benchmarks.processes import BenchmarkError
from benchmarks.report import report, short_table
from benchmarks.results import RATE, Measurement, Recorder, Run, load_run, percentile
from benchmarks.series import SERIES, Plan
from benchmarks.systems import System, Wanted, title, with_one_worker
from benchmarks.tables import failures, number
from benchmarks.throughput import rotated

ROOT = Path(__file__).parents[2]
MACHINE = {"date": "2026-01-01 12:00 UTC", "processor": "a processor, 2 cores", "commit": "abc", "PostgreSQL": ""}
FIGURES = {"cpu": 0.25, "store cpu": 0.0, "rss": 60.0, "peak": 61.0, "pss": 50.0}


def measured(series: str, point: str, system: str, round_: int, rate: float) -> Measurement:
    return Measurement(series, point, system, round_, {RATE: rate, **FIGURES})


def cells(*measurements: Measurement) -> Run:
    return Run(MACHINE, (), measurements)


ROUNDS = cells(
    measured("cells", "k10", "postfix", 0, 1000),
    measured("cells", "k10", "guard-sqlite", 0, 2000),
    measured("cells", "k10", "guard-sqlite", 1, 900),
    measured("cells", "k10", "postfix", 1, 300),
    measured("cells", "k10", "postfix", 2, 1000),
    measured("cells", "k10", "guard-sqlite", 2, 2500),
)


def test_ratio_is_within_a_round() -> None:
    """A round in which the machine was busy was so for both: here the second one."""
    assert ROUNDS.ratio("k10", "guard-sqlite", "postfix") == 2.5
    assert ROUNDS.summary("k10", "guard-sqlite").figures[RATE] == 2000


def test_round_that_failed_counts_as_failed_and_in_no_median() -> None:
    failed = replace(ROUNDS.measurements[1], figures={}, failure="lost one")
    run = cells(ROUNDS.measurements[0], failed, *ROUNDS.measurements[2:])

    summary = run.summary("k10", "guard-sqlite")

    assert (summary.figures[RATE], summary.rounds, summary.failures) == (1700, 3, ("lost one",))
    assert run.ratio("k10", "guard-sqlite", "postfix") == 2.75
    assert "(1 of 3 failed)" in report(run)
    assert "- k10, guard, SQLite, round 1: lost one" in report(run)


def test_system_that_always_failed_has_no_figures() -> None:
    run = cells(ROUNDS.measurements[0], Measurement("cells", "k10", "guard-sqlite", 0, failure="did not start"))

    assert "| k10 | 1,000 | failed |" in report(run)
    assert run.ratio("k10", "guard-sqlite", "postfix") is None


def test_no_failure_is_no_list() -> None:
    assert failures(ROUNDS) == ""


def test_report_shows_rate_ratio_processor_time_and_memory() -> None:
    text = report(ROUNDS)

    assert "| k10 | 1,000 | 2,000 (2.50x) |" in text
    assert "| k10 | 0.250 | 0.250 |" in text
    assert "| k10 | 60.0 / 61.0 / 50.0 | 60.0 / 61.0 / 50.0 |" in text
    assert "| PostgreSQL |" not in text


def test_report_tells_each_command_once() -> None:
    twice = replace(ROUNDS.measurements[0], command="smtp-source -m N")
    run = cells(twice, replace(twice, round=1), replace(twice, point="k50", command="smtp-source -s 50 -m N"))

    assert re.findall(r"^(cells \S+) +(smtp-source .*)$", report(run), re.MULTILINE) == [
        ("cells k10", "smtp-source -m N"),
        ("cells k50", "smtp-source -s 50 -m N"),
    ]


def test_report_tells_what_was_left_out() -> None:
    assert "| left out | Postfix, since only root can start Postfix |" in report(
        replace(ROUNDS, left_out=("Postfix, since only root can start Postfix",))
    )


def test_two_workers_are_beside_postfix() -> None:
    run = cells(
        measured("workers", "k10", "postfix", 0, 1000),
        measured("workers", "k10", "guard-sqlite", 0, 800),
        measured("workers", "k10", "guard-sqlite-2", 0, 1500),
        measured("workers", "k10", "guard-postgresql-2", 0, 1000),
    )

    assert "| k10 | 1,000 | 800 (0.80x) | 1,500 (1.50x) | 1,000 (1.00x) |" in report(run)


@pytest.mark.parametrize("series", SERIES)
def test_every_series_has_its_place_in_the_report(series) -> None:
    figures = {RATE: 1.0, "p50": 1.0, "seconds": 2.0, **FIGURES}
    run = cells(Measurement(series, "10", "guard-sqlite", 0, figures))

    assert report(run).count("### ") == 1


def test_short_table_is_the_guard_beside_postfix() -> None:
    text = short_table(ROUNDS)

    assert "| messages/s | Postfix proxy filter | guard, SQLite |" in text
    assert "| 4 KiB, 10 kept connections | 1,000 | 2,000 (2.50x) |" in text
    assert "2026-01-01" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (0.0214, "0.021"), (2.345, "2.35"), (23.45, "23.4"), (12345.6, "12,346")],
)
def test_number_has_the_digits_that_mean_something(value, shown) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (90, 4), (99, 4), (100, 4), (1, 1)])
def test_percentile_is_one_of_the_values(percent, value) -> None:
    assert percentile([4, 1, 3, 2], percent) == value


def test_results_come_back_as_they_were_written(tmp_path) -> None:
    file = tmp_path / "results.jsonl"
    recorder = Recorder(file, MACHINE, ["Postfix, since it is not there"])
    for measurement in ROUNDS.measurements:
        recorder.record(measurement)

    assert load_run([file]) == replace(ROUNDS, left_out=("Postfix, since it is not there",))


def test_of_several_results_the_last_counts_for_each_series(tmp_path) -> None:
    """So a series can be measured again without the rest; rounds of different runs are never mixed."""
    latency = measured("latency", "100/s", "guard-sqlite", 0, 0)
    first, second = tmp_path / "1", tmp_path / "2"
    for file, measurements in [(first, [latency, ROUNDS.measurements[0]]), (second, [ROUNDS.measurements[1]])]:
        recorder = Recorder(file, MACHINE, [])
        for measurement in measurements:
            recorder.record(measurement)

    run = load_run([first, second])

    assert run.measurements == (latency, ROUNDS.measurements[1])
    assert "Of another run" not in report(run)


def test_what_was_to_be_reached_stands_beside_what_was() -> None:
    run = cells(*ROUNDS.measurements, measured("cells", "c10", "guard-sqlite", 0, 1000))

    lines = report(run).splitlines()

    assert "| SQLite, messages/s to Postfix's | ≥ 2 | k10 2.5 | 1 of 1 |" in lines
    assert "| SQLite, CPU to Postfix's | < 0.5 | k10 1 | 0 of 1 |" in lines
    assert "| SQLite, MiB of the process | < 80 | c10 60, k10 60 | 2 of 2 |" in lines
    assert not any("HOLD" in line for line in lines)


def test_series_of_another_run_says_so(tmp_path) -> None:
    """So that no figure is taken for that of another commit."""
    first, second = tmp_path / "1", tmp_path / "2"
    Recorder(first, MACHINE | {"commit": "before"}, []).record(measured("workers", "k10", "guard-sqlite", 0, 1))
    Recorder(second, MACHINE, []).record(ROUNDS.measurements[0])

    text = report(load_run([first, second]))

    assert text.count("Of another run") == 1
    assert "Of another run (commit before; the rest as above)." in text


def test_each_system_begins_a_round_once() -> None:
    systems = [System(name, 0) for name in ("a", "b", "c")]

    assert ["".join(each.name for each in rotated(systems, number)) for number in range(4)] == [
        "abc", "bca", "cab", "abc",
    ]  # fmt: skip
    assert rotated([], 1) == []


def test_system_is_named_by_engine_and_workers() -> None:
    name = Wanted("guard", "sqlite", workers=2).name

    assert (name, title(name), with_one_worker(name)) == ("guard-sqlite-2", "guard, SQLite, 2 workers", "guard-sqlite")
    assert title("postfix") == "Postfix proxy filter"


def test_load_is_a_command() -> None:
    load = Load("x", sessions=10, octets=100, recipients=5, keeps=True)

    assert " ".join(load.command(7, 2525)) == (
        "smtp-source -N -M bench.example.com -f app@example.com -t user@example.org -d -s 10 -l 100 -r 5 -m 7 "
        "127.0.0.1:2525"
    )


def test_no_recipient_comes_twice() -> None:
    """As many messages as there are addresses for, however fast the system; strangers do not run out."""
    load = Load("x", sessions=1, recipients=10, fewest=5)

    assert load.messages_for(1000, 2, addresses=300) == 30
    assert load.messages_for(1, 2, addresses=300) == 5
    assert replace(load, to=STRANGER).messages_for(1000, 2, addresses=300) == 2000


def test_cells_are_found_by_name() -> None:
    assert [cell(load.name) for load in CELLS] == list(CELLS)


def test_bars_are_as_many_as_values() -> None:
    drawing = ET.fromstring(bars(Chart("A & B", ["c1", "k1"], {"one": [1.5, None], "two": [2.0, 3.0]}), mark=1))

    rectangles = [each for each in drawing.iter() if each.tag.endswith("rect")]
    assert len(rectangles) == 1 + 2 + 3  # the paper, the legend, the values


def test_tenfold_is_as_far_up_again() -> None:
    drawing = ET.fromstring(lines(Chart("growth", ["1", "10", "100"], {"one": [10, 100, 1000], "two": [5, None, 7]})))

    heights = [float(each.attrib["cy"]) for each in drawing.iter() if each.tag.endswith("circle")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert len(heights) == 5


def test_charts_are_of_what_was_measured() -> None:
    growth = [measured("sessions", "1", "direct", 0, 100), measured("sessions", "10", "direct", 0, 200)]

    assert set(charts(cells(*ROUNDS.measurements, *growth))) == {"benchmarks-cells.svg", "benchmarks-sessions.svg"}
    assert charts(cells()) == {}


def test_only_what_is_between_the_markers_changes() -> None:
    assert insert(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new", name="x") == (
        f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    )


def test_document_without_markers_is_refused_before_the_run(tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/benchmarks.md").write_text(f"{BEGIN}\n{END}\n")
    (tmp_path / "README.md").write_text("none")

    with pytest.raises(BenchmarkError, match=r"README\.md has no lines"):
        ensure_markers(tmp_path)


def test_publishing_fills_both_documents_and_leads_to_the_charts(tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("docs/benchmarks.md", "README.md"):
        (tmp_path / name).write_text(f"# Title\n{BEGIN}\n{END}\n")

    publish(ROUNDS, tmp_path)

    document = (tmp_path / "docs/benchmarks.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", document)
    assert pictures == ["benchmarks-cells.svg"]
    assert (tmp_path / "docs" / pictures[0]).exists()
    assert "### The cells" in document
    assert "| 4 KiB, 10 kept connections |" in (tmp_path / "README.md").read_text()


def test_without_options_everything_is_measured() -> None:
    arguments = parse_arguments([])

    assert (arguments.is_whole, arguments.series, arguments.plan) == (True, tuple(SERIES), Plan())


@pytest.mark.parametrize(
    "words", ["--quick", "--cells c1", "--series cells", "--systems guard", "--engines sqlite", "--seconds 1"]
)
def test_part_does_not_count_as_the_whole(words) -> None:
    assert not parse_arguments(words.split()).is_whole


def test_options_choose_a_part() -> None:
    arguments = parse_arguments(
        ["--cells", "k10,c1", "--engines", "sqlite", "--systems", "guard,direct", "--rounds", "5"]
    )

    assert [load.name for load in arguments.plan.cells] == ["k10", "c1"]
    assert arguments.series == ("cells",)
    assert [wanted.name for wanted in arguments.plan.all] == ["direct", "guard-sqlite"]
    assert arguments.plan.pace.rounds == 5


@pytest.mark.parametrize("words", ["--cells k11", "--series nothing", "--systems sendmail", "--engines mysql"])
def test_word_that_names_nothing_is_a_usage_error(words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(words.split())

    assert ended.value.code == 2
    assert "is none of" in capsys.readouterr().err


def test_examples_of_the_document_are_understood() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    examples = re.findall(r"^make bench(?: ARGS=\"?([^\"\n#]*)\"?)?", text, re.MULTILINE)

    assert len(examples) > 3
    for words in examples:
        parse_arguments(words.split())
