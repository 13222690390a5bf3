"""``python -m benchmarks``: measure, and write what came out into the documents; ``make bench`` calls it.

Exit codes: 0 done, 1 it could not go on or something failed on the way, 2 usage, 130 interrupted. What is measured is
written down at once, so that nothing of it is lost.
"""

import shutil
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Never

from benchmarks import postfix
from benchmarks.arguments import Arguments, parse_arguments
from benchmarks.document import ensure_markers, publish
from benchmarks.ground import prepared_ground
from benchmarks.loads import SOURCE
from benchmarks.machine import ROOT, describe
from benchmarks.processes import BenchmarkError
from benchmarks.report import one_line, report
from benchmarks.results import Measurement, Recorder, load_run
from benchmarks.series import SERIES, Plan
from benchmarks.systems import POSTFIX, Ground

INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Do what the command line asks for."""
    arguments = parse_arguments(words)
    signal.signal(signal.SIGTERM, _interrupt)  # so that all that was started is ended
    try:
        if arguments.report or arguments.is_whole:
            ensure_markers(ROOT)
        if arguments.report:
            publish(load_run(arguments.report), ROOT)
            return 0
        return _measure(arguments)
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _interrupt(*_: object) -> Never:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough: what follows is not to be cut short
    raise KeyboardInterrupt


def _measure(arguments: Arguments) -> int:
    if shutil.which(SOURCE) is None:
        raise BenchmarkError(f"it wants {SOURCE} and smtp-sink (Debian: postfix)")
    plan, left_out = arguments.plan, []
    if POSTFIX in plan.systems and (obstacle := postfix.obstacle()):
        plan = plan.without(POSTFIX)
        left_out.append(f"Postfix, since {obstacle}")
        print(f"Left out: {left_out[-1]}", flush=True)
    with prepared_ground(arguments.work, plan.engines, fresh=arguments.fresh) as ground:
        results = arguments.work / "results" / f"{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S}.jsonl"
        results.parent.mkdir(exist_ok=True)
        pace = {"rounds": f"{plan.pace.rounds}, each measurement about {plan.pace.seconds:g} s"}
        recorder = Recorder(results, describe(arguments.work, ground.stores) | pace, left_out)
        try:
            with closing(_measurements(arguments.series, plan, ground)) as measurements:
                for measurement in measurements:
                    recorder.record(measurement)
                    print(one_line(measurement), flush=True)
        finally:
            print(f"Results: {results}", flush=True)
    return _conclude(results, is_whole=arguments.is_whole)


def _measurements(series: Sequence[str], plan: Plan, ground: Ground) -> Generator[Measurement, None, None]:
    for name in series:
        try:
            yield from SERIES[name](plan, ground)
        except (BenchmarkError, OSError) as error:  # the other series may do
            yield Measurement(name, "all", "all", 0, failure=str(error))


def _conclude(results: Path, *, is_whole: bool) -> int:
    run = load_run([results])
    print(report(run))
    if is_whole:
        publish(run, ROOT)
    else:
        print(f"Not everything was measured, so that the documents stay as they are; --report {results} changes them.")
    return 1 if any(each.failure for each in run.measurements) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
