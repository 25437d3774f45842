"""Whatever ``manifest.json`` holds, reading it gives a manifest or one PackageError in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_samples import manifests, sample

from edgesam_mobile.errors import PackageError, UsageError
from edgesam_mobile.package.manifest import (
    FILE_NAME,
    FileRecord,
    Manifest,
    check_file,
    read_manifest,
    record_file,
    write_manifest,
)

Mutation = Callable[[dict[str, Any]], object]

many = settings(
    max_examples=150,
    deadline=None,
    # Every example overwrites the same manifest: nothing of an earlier one is read.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def read(folder: Path, content: bytes | str) -> Manifest:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    (folder / FILE_NAME).write_bytes(data)
    return read_manifest(folder)


def refusal(folder: Path, content: bytes | str) -> str:
    """The message with which the reader refuses; it must fit one line on any terminal."""
    with pytest.raises(PackageError) as caught:
        read(folder, content)
    message = caught.value.message
    assert message.isprintable()
    assert caught.value.hint
    return message


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON object."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def value_at(value: Any, path: tuple[Any, ...]) -> Any:
    return value_at(value[path[0]], path[1:]) if path else value


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


@many
@given(manifests)
def test_any_valid_manifest_reads_back_equal(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


@many
@given(st.data())
def test_damaged_bytes_never_end_in_anything_but_a_package_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(json.dumps(sample()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(tmp_path, bytes(content))
    except PackageError as error:
        assert error.message.isprintable()


@many
@given(st.data())
def test_every_truncation_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = json.dumps(sample()).encode()
    refusal(tmp_path, content[: data.draw(st.integers(0, len(content) - 1))])


@many
@given(st.data())
def test_a_value_of_any_other_kind_is_read_or_refused_by_its_place(tmp_path: Path, data: st.DataObject) -> None:
    whole = sample()
    place = data.draw(st.sampled_from(places(whole)))
    content = json.dumps(replaced(whole, place, data.draw(json_values)))
    try:
        read(tmp_path, content)
    except PackageError as error:
        assert error.message.isprintable()


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("weights", "sha256"), "AB" * 32),
        (("weights", "sha256"), 7),
        (("weights", "trained"), "perhaps"),
        (("weights", "licence"), ["Apache-2.0"]),
        (("picture", "size"), 0),
        (("picture", "size"), 1.5),
        (("picture", "pad_rgb"), [1.0, 2.0]),
        (("picture", "pad_rgb"), [1.0, 2.0, float("nan")]),
        (("mask", "threshold"), float("inf")),
        (("mask", "point_masks"), 5),
        (("artifacts",), []),
        (("artifacts", 0, "id"), "../x"),
        (("artifacts", 0, "precision"), "int 8!"),
        (("artifacts", 0, "encoder", "inputs", 0, "shape", 0), -1),
        (("tools",), None),
        (("git", "dirty"), {}),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(tmp_path: Path, place: tuple[Any, ...], wrong: object) -> None:
    message = refusal(tmp_path, json.dumps(replaced(sample(), place, wrong)))
    assert ".".join(map(str, place)) in message


def test_two_artefacts_of_one_name_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, json.dumps(replaced(sample(), ("artifacts", 1, "id"), "coreml-fp16")))
    assert message.endswith("two artefacts are called coreml-fp16")


def test_a_field_may_be_missing_only_where_the_reader_has_a_default(tmp_path: Path) -> None:
    optional = ("schema", "git", "minimum_os", "threshold")
    for place in places(sample()):
        if not place or isinstance(place[-1], int) or place[-2:-1] in (("tools",), ("op_types",)):
            continue
        whole = sample()
        del value_at(whole, place[:-1])[place[-1]]
        if place[-1] in optional:
            read(tmp_path, json.dumps(whole))
        else:
            assert f"damaged at {'.'.join(map(str, place))}: Field required" in refusal(tmp_path, json.dumps(whole))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    assert "recursion" in refusal(tmp_path, '{"x":' + "[" * 200_000 + "]" * 200_000 + "}")


def test_a_number_of_many_digits_is_refused(tmp_path: Path) -> None:
    whole = json.dumps(sample()).replace("1024", "9" * 100_000, 1)
    assert "number out of range" in refusal(tmp_path, whole)


def test_of_duplicate_keys_the_last_counts(tmp_path: Path) -> None:
    """As in Python's and JavaScript's own readers."""
    whole = json.dumps(sample())
    assert read(tmp_path, whole[:-1] + ', "model": "another"}').model == "another"


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, constant: str) -> None:
    assert "pad_rgb" in refusal(tmp_path, json.dumps(sample()).replace("123.675", constant))


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b'"text"', b"\xff\xfe{}", b"\x00" * 100, b"{}", '{"model": "\ud800"}']
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes | str) -> None:
    refusal(tmp_path, content)


def test_an_implausibly_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / FILE_NAME).open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: it takes no space, and reading it would take for ever
    with pytest.raises(PackageError, match="implausibly large"):
        read_manifest(tmp_path)


def test_names_in_a_message_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    whole = replaced(sample(), ("artifacts", 0, "encoder", "op_types"), {"\x1b[2J\nok": -1})
    assert "?[2J?ok" in refusal(tmp_path, json.dumps(whole))


@pytest.mark.parametrize("version", ["edgesam.manifest/2", "edgesam.manifest/10", "edgesam.manifest/x"])
def test_an_unknown_version_is_refused_before_its_fields_are(tmp_path: Path, version: str) -> None:
    message = refusal(tmp_path, json.dumps({"schema": version, "everything": "else"}))
    assert version in message
    assert "edgesam.manifest/1" in message


@pytest.mark.parametrize("version", ["somebody.else/1", "", 1, None])
def test_what_is_another_schema_altogether_is_refused(tmp_path: Path, version: object) -> None:
    assert "damaged at schema" in refusal(tmp_path, json.dumps({**sample(), "schema": version}))


@many
@given(st.data())
def test_unknown_fields_pass(tmp_path: Path, data: st.DataObject) -> None:
    whole = sample()
    known = read(tmp_path, json.dumps(whole))
    objects = [place for place in places(whole) if isinstance(value_at(whole, place), dict)]
    # These two map names to values: no name in them is unknown.
    place = data.draw(st.sampled_from([p for p in objects if p[-1:] not in (("tools",), ("op_types",))]))
    extended = {**value_at(whole, place), "later_addition": data.draw(st.integers() | st.text(max_size=5))}
    assert read(tmp_path, json.dumps(replaced(whole, place, extended))) == known


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "//x", "C:/x", "a\\..\\x", "a\0b", "a\nb", "x" * 300],
)
def test_a_path_out_of_the_package_is_refused(tmp_path: Path, path: str) -> None:
    place = ("artifacts", 0, "decoder", "file", "path")
    message = refusal(tmp_path, json.dumps(replaced(sample(), place, path)))
    assert "artifacts.0.decoder.file.path" in message


@pytest.mark.parametrize("folder", [False, True])
def test_a_recorded_file_or_folder_is_found_unaltered(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "ios" / "a.mlpackage"
    member = path / "Data" / "weights.bin" if folder else path
    member.parent.mkdir(parents=True)
    member.write_bytes(b"weights")
    record = record_file(tmp_path, path)
    assert (record.path, record.bytes) == ("ios/a.mlpackage", 7)
    assert check_file(tmp_path, record) == path
    member.write_bytes(b"Weights")
    with pytest.raises(PackageError, match=r"a\.mlpackage has been altered"):
        check_file(tmp_path, record)


def test_an_added_member_alters_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"1")
    record = record_file(tmp_path, tmp_path / "a")
    (tmp_path / "a" / "two").write_bytes(b"")
    with pytest.raises(PackageError, match="altered"):
        check_file(tmp_path, record)


def test_a_missing_file_and_a_pipe_in_its_place_are_refused(tmp_path: Path) -> None:
    record = FileRecord(path="a.onnx", sha256="0" * 64, bytes=1)
    with pytest.raises(PackageError, match=r"a\.onnx is missing"):
        check_file(tmp_path, record)
    os.mkfifo(tmp_path / "a.onnx")
    with pytest.raises(PackageError, match=r"a\.onnx is missing"):
        check_file(tmp_path, record)


def test_links_out_of_the_package_or_in_a_circle_are_refused(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (tmp_path / "outside").write_bytes(b"1")
    outside = record_file(tmp_path, tmp_path / "outside")
    (package / "outside").symlink_to(tmp_path / "outside")
    (package / "circle").symlink_to(package / "circle")
    with pytest.raises(PackageError, match="leads out of the package"):
        check_file(package, outside)
    with pytest.raises(PackageError, match="cannot read"):
        check_file(package, FileRecord(path="circle", sha256="0" * 64, bytes=1))


def test_a_name_too_long_for_the_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="cannot read"):
        check_file(tmp_path, FileRecord(path="ä" * 200, sha256="0" * 64, bytes=1))


def test_what_is_no_package_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place, what in (("missing", "no such folder"), ("file", "not a folder"), (".", "no manifest.json in it")):
        with pytest.raises(PackageError, match=f"is not a package: {what}") as caught:
            read_manifest(tmp_path / place)
        assert caught.value.hint == "make one with `edgesam-mobile build`"
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(PackageError, match="cannot read"):
        read_manifest(tmp_path)


def test_artefacts_and_files_are_found_by_name(tmp_path: Path) -> None:
    manifest = read(tmp_path, json.dumps(sample()))
    assert manifest.artifact("onnx-fp32").format == "onnx"
    files = ["ios/encoder.mlpackage", "ios/decoder.mlpackage", "host/encoder.onnx", "host/decoder.onnx"]
    assert [record.path for record in manifest.files()] == files
    with pytest.raises(UsageError, match="no artefact 'onnx'") as caught:
        manifest.artifact("onnx")
    assert caught.value.hint == "it has coreml-fp16, onnx-fp32"
