"""The Core ML package inside an ExecuTorch program: what is taken out of it, what is refused, and what it answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgesam_mobile.deploy.saving import small_packages
from edgesam_mobile.runtime.coreml import embedded
from edgesam_mobile.runtime.coreml.embedded import Embedded, extract
from edgesam_mobile.runtime.coreml.interpreter import Interpreter
from edgesam_mobile.runtime.coreml.program import read_program
from edgesam_mobile.runtime.coreml.types import ProgramError

FILES = {
    "metadata.json": json.dumps({"inputNames": ["a", "b"], "outputNames": ["c"]}).encode(),
    "model.mlpackage/Manifest.json": b"{}",
    "model.mlpackage/Data/weights/weight.bin": bytes(range(256)),
    "empty": b"",
}
Node = dict[str, Any]


def file(name: str, offset: int = 0, size: int = 0, **more: Any) -> Node:
    return {"name": name, "kind": 0, "dataRegion": {"offset": offset, "size": size}, **more}


def folder(name: str, **children: Any) -> Node:
    return {"name": name, "kind": 1, "children": children}


def payload(nodes: Any, content: bytes = b"") -> bytes:
    """The contents, then the listing from its end to its beginning, as ExecuTorch writes it."""
    return content + json.dumps({"nodes": nodes}).encode()[::-1]


def flattened(files: dict[str, bytes]) -> bytes:
    """A directory as ExecuTorch's Core ML backend flattens it."""
    nodes: list[Node] = [folder("")]
    content = b""
    for path, data in files.items():
        here = 0
        *parents, name = path.split("/")
        for part in parents:
            if part not in nodes[here]["children"]:
                nodes.append(folder(part))
                nodes[here]["children"][part] = len(nodes) - 1
            here = nodes[here]["children"][part]
        nodes.append(file(name, len(content), len(data)))
        nodes[here]["children"][name] = len(nodes) - 1
        content += data
    return payload(nodes, content)


def taken(data: bytes, target: Path, monkeypatch: pytest.MonkeyPatch) -> Embedded:
    """``extract`` of a program whose Core ML part is ``data``, and which takes and gives its values in order."""
    arguments = SimpleNamespace(args=[5, 6, 7])
    chain = SimpleNamespace(instructions=[SimpleNamespace(instr_args=arguments)])
    plan = SimpleNamespace(chains=[chain], inputs=[6, 5], outputs=[7])
    monkeypatch.setattr(embedded, "_delegate", lambda path: (plan, data))
    return extract(Path("program.pte"), target)


def contents(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


def test_a_directory_is_written_as_it_was_flattened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = taken(flattened(FILES), tmp_path, monkeypatch)
    assert found == Embedded(tmp_path / "model.mlpackage", ("b", "a"), ("c",))
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/outside", "..", "a\\..\\outside", "a\0b", "model/../../outside"]
)
def test_a_file_that_would_be_written_outside_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "in" / "side"
    inside.mkdir(parents=True)
    for nodes in ([folder("", **{name: 1}), file(name)], [folder("", **{name: 1}), folder(name, x=2), file("x")]):
        with pytest.raises(ProgramError, match="would be written outside of its folder"):
            taken(payload(nodes), inside, monkeypatch)
    assert contents(tmp_path) == {}


CIRCLES = {
    "two folders": [folder("", a=1), folder("a", b=2), folder("b", a=1)],
    "one folder": [folder("", a=1), folder("a", a=1)],
    "one file twice": [folder("", a=1, b=1), file("a")],
    "counted from the end": [folder("", a=-1), folder("a", a=-1)],
    "all": [folder("", a=1), folder("a", b=0)],
}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_listing_that_goes_in_a_circle_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProgramError, match=r"goes in a circle|is damaged"):
        taken(payload(CIRCLES[name]), tmp_path, monkeypatch)


LISTINGS: dict[str, Any] = {
    "no list": {"a": 1},
    "nothing": [],
    "two roots": [folder(""), folder("")],
    "a number": [5],
    "a child that is not there": [folder("", a=9)],
    "a child that is no number": [folder("", a=1.5), file("a")],
    "children in a list": [{"name": "", "kind": 1, "children": [1]}, file("a")],
    "no kind": [folder("", a=1), {"name": "a"}],
    "no place": [folder("", a=1), {"name": "a", "kind": 0}],
    "behind the end": [folder("", a=1), file("a", 0, 1 << 40)],
    "before the beginning": [folder("", a=1), file("a", -1, 1)],
    "of negative length": [folder("", a=1), file("a", 5, -3)],
    "of endless length": [folder("", a=1), file("a", 0, float("inf"))],  # type: ignore[arg-type]
    "of no length": [folder("", a=1), file("a", 0, float("nan"))],  # type: ignore[arg-type]
    "a file with files inside": [folder("", a=1), file("a", children={"b": 2}), file("b")],
    "a file without a name": [file("")],
    "a name that no disk takes": [folder("", **{"a" * 5000: 1}), file("a")],
    "a name that is no text": [folder("", **{"\ud800": 1}), file("a")],
    "no metadata": [folder("", a=1), file("a")],
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_that_makes_no_sense_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProgramError) as caught:
        taken(payload(LISTINGS[name], b"0123456789"), tmp_path, monkeypatch)
    assert "\n" not in str(caught.value)


def test_a_listing_as_deep_as_it_is_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProgramError):
        taken((b'{"nodes": ' + b"[" * 500_000)[::-1], tmp_path, monkeypatch)


def test_files_that_share_their_bytes_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is no more than what is there: or a program of 1 MB becomes 200 MB, or any amount."""
    content = bytes(1 << 20)
    nodes = [folder("", **{f"f{n}": n + 1 for n in range(200)}), *(file("f", 0, len(content)) for _ in range(200))]
    with pytest.raises(ProgramError):
        taken(payload(nodes, content), tmp_path, monkeypatch)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "said", [b"", b"[]", b"{}", b'{"inputNames": 5}', b"\xff", b'{"inputNames": ["a"], "outputNames": ["c"]}']
)
def test_a_part_that_does_not_name_its_values_is_refused(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProgramError, match=r"does not say what its inputs|takes 3 values, but names 2"):
        taken(flattened({"metadata.json": said}), tmp_path, monkeypatch)


def test_any_damage_to_the_part_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = flattened(FILES)
    listing = len(data) - sum(map(len, FILES.values()))
    escaped: dict[str, int] = {}
    for seed in range(600):
        dice = random.Random(seed)
        spoiled = bytearray(data)
        for _ in range(dice.randint(1, 3)):
            place = len(spoiled) - 1 - dice.randrange(listing)
            match dice.randrange(3):
                case 0:
                    spoiled[place] = dice.choice(b'0123456789-.,:{}[]"\\ aeE/\x00\xff')
                case 1:
                    del spoiled[place : place + dice.randint(1, 9)]
                case _:
                    spoiled[place] ^= 1 << dice.randrange(8)
        try:
            taken(bytes(spoiled), tmp_path / str(seed) / "in", monkeypatch)
        except ProgramError as error:
            assert "\n" not in str(error)
        except Exception as error:
            escaped.setdefault(f"{type(error).__name__}: {error}"[:200], seed)
        assert {path.name for path in (tmp_path / str(seed)).glob("*")} <= {"in"}
    assert not escaped, "\n".join(f"seed {seed}: {said!r}" for said, seed in escaped.items())


# -- ExecuTorch's own programs


class Small(nn.Module):
    """Two inputs, of which the second is used first; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.linear = nn.Linear(4, 5)

    def forward(self, image: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.conv(image * (offset + 1)))
        return self.linear(features.mean((2, 3))), nn.functional.gelu(features)


def lowered(module: nn.Module, path: Path, *examples: Tensor, delegate: bool = True) -> Path:
    import coremltools as ct
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner
    from executorch.exir import to_edge_transform_and_lower

    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=ct.precision.FLOAT32, minimum_deployment_target=ct.target.iOS16
    )
    exported = torch.export.export(module.eval(), examples, strict=False)
    partitioners = [CoreMLPartitioner(compile_specs=specs)] if delegate else []
    program = to_edge_transform_and_lower(exported, partitioner=partitioners).to_executorch()
    path.write_bytes(program.buffer)
    return path


@pytest.fixture(scope="module")
def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, 8, 8, generator=generator), torch.randn(1, 1, 8, 8, generator=generator)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, examples: tuple[Tensor, Tensor]) -> Path:
    return lowered(Small(), tmp_path_factory.mktemp("executorch") / "small.pte", *examples)


slow = pytest.mark.slow
# coremltools leaves its temporary folders to the collector.
leaves_folders = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")


@slow
@leaves_folders
def test_a_program_answers_as_pytorch_does(program: Path, examples: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    found = extract(program, tmp_path)
    assert len(found.inputs) == 2 and len(found.outputs) == 2
    answers = Interpreter(read_program(found.package)).run(dict(zip(found.inputs, examples, strict=True)))
    with torch.no_grad():
        expected = Small().eval()(*examples)
    for name, value in zip(found.outputs, expected, strict=True):
        torch.testing.assert_close(answers[name], value, rtol=1e-4, atol=1e-5)


@slow
@leaves_folders
def test_what_is_saved_small_is_embedded_small(
    program: Path, examples: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    with small_packages():
        lowered(Small(), tmp_path / "small.pte", *examples)
    small, full = (extract(path, tmp_path / path.parent.name) for path in (tmp_path / "small.pte", program))
    files = {path.name for path in small.package.parent.rglob("*") if path.is_file()}
    assert files == {"Manifest.json", "model.mlmodel", "weight.bin", "metadata.json"}
    assert "debug_info.json" in {path.name for path in full.package.parent.iterdir()}
    answers = [
        Interpreter(read_program(x.package)).run(dict(zip(x.inputs, examples, strict=True))) for x in (small, full)
    ]
    for name in small.outputs:
        assert torch.equal(answers[0][name], answers[1][name])
    assert (tmp_path / "small.pte").stat().st_size < 0.7 * program.stat().st_size


@slow
@leaves_folders
def test_any_damage_to_a_program_ends_in_one_line(
    program: Path, examples: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    content = program.read_bytes()
    escaped: dict[str, int] = {}
    for seed in range(150):
        dice = random.Random(seed)
        data = bytearray(content[: dice.randrange(len(content))] if seed % 5 == 0 else content)
        for _ in range(dice.randint(1, 4)):
            if data:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path = tmp_path / f"{seed}.pte"
        path.write_bytes(data)
        try:
            found = extract(path, tmp_path / str(seed))
            interpreter = Interpreter(read_program(found.package))
            interpreter.run(dict(zip(found.inputs, examples, strict=True)))
        except ProgramError as error:
            if "\n" in str(error):
                escaped.setdefault(f"several lines: {error}", seed)
        except Exception as error:
            escaped.setdefault(f"{type(error).__name__}: {error}"[:200], seed)
    assert not escaped, "\n".join(f"seed {seed}: {said!r}" for said, seed in escaped.items())


@slow
@leaves_folders
def test_a_program_that_computes_elsewhere_is_refused(tmp_path: Path) -> None:
    path = lowered(nn.ReLU(), tmp_path / "portable.pte", torch.ones(1, 3), delegate=False)
    with pytest.raises(ProgramError, match="computes outside of its Core ML part"):
        extract(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"ET12", b"\0" * 1000, b"this is not a model" * 100])
def test_a_file_that_is_no_program_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "none.pte").write_bytes(content)
    with pytest.raises(ProgramError, match=r"it is no readable ExecuTorch program|it has 0 methods"):
        extract(tmp_path / "none.pte", tmp_path / "out")
