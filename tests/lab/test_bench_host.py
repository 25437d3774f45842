"""Whole benchmarks on this machine: short ones on the baselines of a small package, and one on a real package."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgesam_mobile.cli import app
from edgesam_mobile.deploy.build import build
from edgesam_mobile.deploy.options import BuildOptions
from edgesam_mobile.errors import EnvironmentMissing, UsageError, WeightsError
from edgesam_mobile.lab import host
from edgesam_mobile.lab import launch as launches
from edgesam_mobile.lab.cases import Case
from edgesam_mobile.lab.host import BenchResult, bench, measure, prepare, processors
from edgesam_mobile.lab.launch import Sample
from edgesam_mobile.lab.report import as_record, report, speed_up
from edgesam_mobile.lab.store import open_store
from edgesam_mobile.model.standin import write_standin

BASELINES = ("pytorch-eager", "onnx-published")


@pytest.fixture(scope="module")
def result(bare_package: Path, standin_file: Path) -> BenchResult:
    return bench(
        bare_package,
        threads=(1,),
        only=BASELINES,
        weights=str(standin_file),
        launches=2,
        seconds=0.1,
        offline=True,
    )


@pytest.mark.slow
def test_every_launch_is_a_process_of_its_own(result: BenchResult) -> None:
    assert [launch.error for launch in result.launches] == [None] * 4
    assert len({launch.hello["pid"] for launch in result.launches}) == 4
    assert [launch.index for launch in result.launches] == [0, 0, 1, 1]
    assert {launch.case.id for launch in result.launches[:2]} == set(BASELINES)


@pytest.mark.slow
def test_no_two_processes_ran_at_once(result: BenchResult) -> None:
    spans = [(x.samples[0].monotonic_ns, x.samples[-1].monotonic_ns) for x in result.launches]
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))


@pytest.mark.slow
def test_the_report_has_every_part_of_every_case(result: BenchResult) -> None:
    for found in report(result):
        assert found.stages.keys() == {"pre", "encode", "decode", "post", "frame"}
        assert found.launches == 2 and found.quick
        assert found.load_ms and found.first_ms and found.peak_bytes and found.growth_bytes
        counted = sum(len(launch.times("frame")) for launch in result.of(found.case))
        assert found.stages["frame"].summary.count == counted


@pytest.mark.slow
def test_masks_are_held_against_pytorch(result: BenchResult) -> None:
    eager, published = report(result)
    assert eager.mask_iou == 1
    assert published.mask_iou is not None and published.mask_iou > 0.9
    assert eager.vs_pytorch is None and published.vs_pytorch is not None


@pytest.mark.slow
def test_the_record_is_json_with_every_raw_sample(result: BenchResult) -> None:
    record = json.loads(json.dumps(as_record(result, report(result)), allow_nan=False))
    assert record["not_timed"] == []
    assert [case["key"] for case in record["cases"]] == ["pytorch-eager@1", "onnx-published@1"]
    kept = sum(len(launch["samples"]) for launch in record["launches"])
    assert kept == sum(len(launch.samples) for launch in result.launches)
    assert record["weights"]["trained"] is False


@pytest.mark.slow
def test_cases_are_compared_by_part(result: BenchResult) -> None:
    case = next(case for case in result.prepared.jobs if case.id == "onnx-published")
    for cpu in (False, True):
        estimate = speed_up(result, case, "pytorch-eager", "encode", cpu=cpu)
        assert estimate is not None and estimate.low is not None and estimate.value > 0
    assert speed_up(result, case, "mobile-sam", "encode") is None


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_measured(bare_package: Path, standin_file: Path) -> None:
    prepared = prepare(bare_package, threads=(1,), only=("pytorch-eager",), weights=str(standin_file), offline=True)

    def interrupt(case: Case, sample: Sample) -> None:
        if sample.stage == "frame":
            raise KeyboardInterrupt

    stopped = measure(prepared, launches=3, seconds=0.1, on_sample=interrupt)
    assert stopped.partial
    assert [launch.status for launch in stopped.launches] == ["interrupted"]
    (found,) = report(stopped)
    assert found.stages["frame"].summary.count == 1
    assert found.peak_bytes is None and found.mask_iou is None
    assert as_record(stopped, [found])["partial"] is True


def test_a_launch_that_fails_is_left_out_of_the_numbers_but_not_of_the_record(
    bare_package: Path, standin_file: Path
) -> None:
    prepared = prepare(bare_package, threads=(1,), only=("pytorch-eager",), weights=str(standin_file), offline=True)
    failed = measure(prepared, launches=1, seconds=600, timeout=0.5)
    (found,) = report(failed)
    assert found.launches == 0 and found.stages == {} and found.vs_pytorch is None
    (record,) = as_record(failed, [found])["launches"]
    assert record["status"] == "failed" and "took longer than" in record["error"]


def test_weights_that_are_not_the_packages_are_refused(bare_package: Path, tmp_path: Path) -> None:
    other = write_standin("edge-sam", tmp_path / "other.safetensors", seed=1)
    with pytest.raises(WeightsError, match="are not the weights"):
        prepare(bare_package, weights=str(other), offline=True)
    with pytest.raises(WeightsError, match="no file"):
        prepare(bare_package, weights=str(tmp_path / "missing.pt"), offline=True)


def test_without_weights_the_baselines_are_skipped_with_the_reason(
    bare_package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGESAM_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentMissing) as caught:
        prepare(bare_package, offline=True)
    text = caught.value.message
    assert "pytorch-eager: the package's weights (student.safetensors) are not at hand" in text
    assert "mobile-sam: mobile-sam: " in text and "offline" in text
    assert "coreml-fp32: only interpreted here, which gives no times, and without pytorch-eager its mask" in text


@pytest.mark.slow
def test_impossible_settings_are_refused(bare_package: Path, result: BenchResult) -> None:
    for threads in ((0,), (processors() + 1,), (-1,)):
        with pytest.raises(UsageError, match="threads"):
            prepare(bare_package, threads=threads)
    for settings in ({"launches": 0}, {"seconds": 0}, {"seconds": float("nan")}):
        with pytest.raises(UsageError, match="positive"):
            measure(result.prepared, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_published_export_is_made_once(bare_package: Path, standin_file: Path, result: BenchResult) -> None:
    notes: list[str] = []
    prepare(bare_package, only=("onnx-published",), weights=str(standin_file), offline=True, note=notes.append)
    assert notes == []


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_samples(
    bare_package: Path, standin_file: Path, result: BenchResult, tmp_path: Path
) -> None:
    call = [
        *("bench", str(bare_package), "--weights", str(standin_file), "--offline", "--threads", "1"),
        *("--only", "pytorch-eager", "--launches", "1", "--seconds", "0.1"),
    ]
    told = CliRunner().invoke(app, [*call, "--samples", str(tmp_path / "samples.json")])
    assert told.exit_code == 0, told.output
    assert "host timings say nothing about a phone" in told.stdout
    assert "pytorch-eager" in told.stdout
    assert "untrained stand-in" in told.stderr
    written = json.loads((tmp_path / "samples.json").read_text())
    assert written["schema"] == "edgesam.bench/1"
    assert written["launches"][0]["samples"]


def test_whatever_ends_a_run_what_waited_for_pytorch_is_stored(
    bare_package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(prepared: host.Prepared, *, on_launch: Any, **_: Any) -> None:
        on_launch(launches.Launch(next(iter(prepared.jobs)), 0))
        raise LookupError("a fault of the program")

    monkeypatch.setattr(host, "measure", measured)
    store = tmp_path / "store.sqlite"
    call = ["bench", str(bare_package), "--weights", str(standin_file), "--offline", "--only", "pytorch-eager"]
    told = CliRunner().invoke(app, [*call, "--threads", "1", "--store", str(store)])
    assert told.exit_code == 1 and "LookupError" in told.stderr
    (run,) = open_store(store).runs()
    assert run.status == "partial" and len(run.launches) == 1


def test_samples_that_could_not_be_written_are_refused_before_anything_is_measured(
    bare_package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(*_: Any, **__: Any) -> None:
        pytest.fail("it measures first")

    monkeypatch.setattr(host, "measure", measured)
    call = ["bench", str(bare_package), "--weights", str(standin_file), "--offline", "--no-store", "--samples"]
    for target in ("/proc/nowhere/samples.json", str(tmp_path)):
        told = CliRunner().invoke(app, [*call, target])
        assert told.exit_code == 12, told.output
        assert target in told.stderr and told.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_result_is_shown_even_where_its_samples_can_no_longer_be_written(
    bare_package: Path, standin_file: Path, result: BenchResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "samples"

    def measured(*_: Any, **__: Any) -> BenchResult:
        folder.write_text("somebody else's")
        return result

    monkeypatch.setattr(host, "measure", measured)
    call = ["bench", str(bare_package), "--weights", str(standin_file), "--offline", "--no-store", "--json"]
    told = CliRunner().invoke(app, [*call, "--only", "pytorch-eager", "--samples", str(folder / "samples.json")])
    assert told.exit_code == 12, told.output
    assert json.loads(told.stdout)["launches"]


def test_a_command_whose_launches_all_fail_says_so(
    bare_package: Path, standin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (sys.executable, "-c", "import sys; sys.exit('out of luck')")
    monkeypatch.setattr(launches.run_launch, "__kwdefaults__", {**_defaults(), "command": broken})
    call = ["bench", str(bare_package), "--weights", str(standin_file), "--offline", "--launches", "1"]
    told = CliRunner().invoke(app, [*call, "--only", "pytorch-eager", "--threads", "1", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout)["launches"][0]["error"].endswith("out of luck")
    assert "no launch succeeded of pytorch-eager@1" in told.stderr


def _defaults() -> dict[str, Any]:
    return dict(launches.run_launch.__kwdefaults__ or {})


@pytest.mark.parametrize(
    ("options", "exit_code", "said"),
    [
        (["--only", "nonsense"], 2, "no case 'nonsense'"),
        (["--threads", "4096"], 2, "no 4096 threads"),
        (["--no-baselines"], 5, "nothing to measure"),
        (["--image", "missing.jpg"], 8, "missing.jpg"),
    ],
)
def test_the_command_refuses_in_one_line(bare_package: Path, options: list[str], exit_code: int, said: str) -> None:
    told = CliRunner().invoke(app, ["bench", str(bare_package), "--offline", *options])
    assert told.exit_code == exit_code
    assert said in told.stderr and told.stderr.count("\n") == 1
    assert told.stdout == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_package_beside_its_baselines(mobile_sam_path: Path, tmp_path: Path) -> None:
    """Every artefact runs, and what is timed answers as PyTorch does; at 256 pixels, since README's has 1024."""
    package = tmp_path / "package"
    build(
        BuildOptions("mobile-sam", targets=("android", "host"), precisions=("fp32",), input_size=256),
        package,
    )
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "host.py"
    samples = tmp_path / "samples.json"
    threads = str(processors())
    call = [str(script), str(package), "--launches", "2", "--seconds", "0.2", "--threads", threads]
    done = subprocess.run(
        [sys.executable, *call, "--samples", str(samples)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(samples.read_text())
    assert {launch["status"] for launch in record["launches"]} == {"ok"}
    ids = {case["case"]["id"] for case in record["cases"]}
    assert ids == {"onnx-fp32", "tflite-fp32", "executorch-xnnpack-fp32", *BASELINES}
    for case in record["cases"]:
        assert case["mask_iou"] > 0.95, case["key"]
    assert f"| pytorch-eager | {threads} | encode |" in done.stdout
    assert f"| onnx-published | {threads} | decode |" in done.stdout
