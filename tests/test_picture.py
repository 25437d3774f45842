"""Pictures of every kind come out upright, RGB and true; damaged ones end in one line."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesam_mobile.errors import PictureError, StorageError, UsageError
from edgesam_mobile.picture import overlay, read_picture, write_png

WIDE = np.array([[0, 128, 129, 255, 256, 300, 32768, 65000, 65535]], dtype=np.uint16)
TIFF_TYPES = {"H": 3, "I": 4}


def png16(samples: np.ndarray, colour_type: int, transparent: bytes = b"") -> bytes:
    """A 16-bit PNG, which Pillow can only write in grey: one zero filter byte a row, big-endian samples."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"tRNS", transparent) if transparent else b"",
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def tiff16(samples: np.ndarray, photometric: int, *, planar: int = 1, packed: bytes = b"") -> bytes:
    """A little-endian, uncompressed one-strip TIFF of 16-bit words, or of samples packed in 12 bits each."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else 3
    bits, data = (12, packed) if packed else (16, samples.astype("<u2").tobytes())
    entries = [
        (256, "H", width),
        (257, "H", height),
        (258, "H", bits),
        (259, "H", 1),
        (262, "H", photometric),
        (273, "I", 8),
        (277, "H", channels),
        (278, "H", height),
        (279, "I", len(data)),
        (284, "H", planar),
    ]
    place = 8 + len(data)
    wide_bits = place + 2 + 12 * len(entries) + 4
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        if tag == 258 and channels == 3:
            directory += struct.pack("<HHII", tag, 3, 3, wide_bits)
        else:
            directory += struct.pack("<HHII", tag, TIFF_TYPES[kind], 1, value)
    return b"II*\0" + struct.pack("<I", place) + data + directory + bytes(4) + struct.pack("<3H", *[bits] * 3)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(folder: Path, data: bytes, name: str = "picture.png") -> np.ndarray:
    path = folder / name
    path.write_bytes(data)
    pixels = read_picture(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.flags.writeable and pixels.flags.c_contiguous
    return pixels


def refused(path: Path) -> PictureError:
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert "\n" not in caught.value.message and str(path) in caught.value.message
    assert caught.value.hint and "\n" not in caught.value.hint
    return caught.value


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (37, 23, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("width", [1, 23])
def test_colour_is_kept_as_it_is(tmp_path: Path, noise: np.ndarray, kind: str, width: int) -> None:
    picture = noise[:, :width]
    assert np.array_equal(read(tmp_path, encoded(Image.fromarray(picture), kind)), picture)


def test_grey_and_one_bit_become_rgb(tmp_path: Path, noise: np.ndarray) -> None:
    grey = noise[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(read(tmp_path, encoded(Image.fromarray(grey), "PNG")), expected)
    bits = Image.fromarray(grey > 127)
    assert np.array_equal(read(tmp_path, encoded(bits, "PNG")), np.where(expected > 127, 255, 0))


def test_palette(tmp_path: Path, noise: np.ndarray) -> None:
    palette = Image.fromarray(noise).quantize(16)
    assert np.array_equal(read(tmp_path, encoded(palette, "PNG")), np.array(palette.convert("RGB")))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    flat = Image.new("RGB", (32, 32), (200, 80, 20))
    pixels = read(tmp_path, encoded(flat.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - np.array([200, 80, 20])).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (3, 1), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    alpha = Image.fromarray(np.array([[255, 128, 0]], dtype=np.uint8))
    image.putalpha(alpha)
    pixels = read(tmp_path, encoded(image, "PNG"))
    assert pixels[0].tolist() == [[0] * 3, [127] * 3, [255] * 3]


def test_transparent_palette_entry_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    assert read(tmp_path, encoded(image, "PNG", transparency=0))[0].tolist() == [[255] * 3, [200, 0, 0]]


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    expected = np.repeat(np.rint(WIDE / 257).astype(np.uint8)[..., None], 3, axis=2)
    inverted = 255 - expected
    assert np.array_equal(read(tmp_path, png16(WIDE, 0)), expected)
    assert np.array_equal(read(tmp_path, tiff16(WIDE, 1)), expected)
    assert np.array_equal(read(tmp_path, tiff16(WIDE, 0)), inverted)
    pgm = b"P5 9 1 65535\n" + WIDE.astype(">u2").tobytes()
    assert np.array_equal(read(tmp_path, pgm), expected)


def test_12_bit_grey_is_scaled_over_its_range(tmp_path: Path) -> None:
    samples = np.array([[0x000, 0xFFF, 0x800, 0x00F]])
    data = tiff16(samples, 1, packed=bytes.fromhex("000fff80000f"))
    assert read(tmp_path, data)[0, :, 0].tolist() == [0, 255, 128, 1]


def test_16_bit_grey_with_a_transparent_value(tmp_path: Path) -> None:
    pixels = read(tmp_path, png16(WIDE, 0, struct.pack(">H", 256)))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 255, 1, 128, 253, 255]


def test_16_bit_colour_keeps_its_whole_range(tmp_path: Path) -> None:
    colour = np.stack([WIDE, WIDE[:, ::-1], WIDE // 2], axis=-1)
    for data in (png16(colour, 2), tiff16(colour, 2)):
        pixels = read(tmp_path, data)
        assert np.array_equal(pixels, colour >> 8)
        assert np.abs(pixels - colour / 257).max() <= 1


def test_16_bit_grey_with_alpha(tmp_path: Path) -> None:
    pair = np.stack([WIDE, np.full_like(WIDE, 65535)], axis=-1)
    assert np.array_equal(read(tmp_path, png16(pair, 4))[..., 0], WIDE >> 8)


def test_layouts_pillow_misreads_are_refused(tmp_path: Path) -> None:
    colour = np.stack([WIDE, WIDE, WIDE], axis=-1)
    path = tmp_path / "picture"
    path.write_bytes(tiff16(colour, 2, planar=2))
    assert "separate colour planes" in refused(path).message
    path.write_bytes(png16(colour, 2, struct.pack(">3H", 256, 256, 256)))
    assert "transparent colour" in refused(path).message


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_samples_without_agreed_brightness_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.tiff"
    path.write_bytes(encoded(Image.new(mode, (4, 3)), "TIFF"))
    assert "brightness" in refused(path).message


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    # Four flat quadrants survive JPEG; the camera stored them so that undoing `orientation` shows `upright`.
    upright = np.kron(np.array([[0, 80], [160, 240]], dtype=np.uint8), np.ones((16, 32), dtype=np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", quality=95, exif=exif)
    pixels = read(tmp_path, data, "photo.jpg")
    assert pixels.shape == (32, 64, 3)
    assert np.abs(pixels[..., 0].astype(int) - upright).max() <= 3


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\0\0more garbage"])
def test_broken_exif_does_not_cost_the_picture(tmp_path: Path, exif: bytes) -> None:
    data = encoded(Image.new("L", (8, 8), 90), "JPEG", exif=exif)
    assert (read(tmp_path, data) == 90).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_of_several_frames(tmp_path: Path, kind: str) -> None:
    first, second = Image.new("RGB", (16, 8), (255, 0, 0)), Image.new("RGB", (16, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert (read(tmp_path, data) == [255, 0, 0]).all()


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not a picture\n" * 20)
    assert "not a picture" in refused(text).message
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert "empty" in refused(empty).message
    assert "no such file" in refused(tmp_path / "missing.jpg").message
    assert "not a file" in refused(tmp_path).message
    # Pillow would hand this to another program.
    script = tmp_path / "drawing.eps"
    script.write_bytes(encoded(Image.new("RGB", (4, 4)), "EPS"))
    refused(script)


def test_names_the_system_refuses(tmp_path: Path) -> None:
    refused(tmp_path / ("a" * 5000))
    if os.name == "posix":
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        assert "not a file" in refused(pipe).message


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_never_half_a_picture(tmp_path: Path, progressive: bool) -> None:
    large = np.random.default_rng(3).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(large), "JPEG", quality=90, progressive=progressive)
    path = tmp_path / "cut.jpg"
    for length in (
        1,
        2,
        100,
        700,
        len(data) // 3,
        len(data) // 2,
        len(data) - 500,
        len(data) - 2,
        len(data) - 1,
    ):
        path.write_bytes(data[:length])
        refused(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere_it_is_whole_or_refused(tmp_path: Path, noise: np.ndarray, kind: str, cut: float) -> None:
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut"
    path.write_bytes(data)
    whole = read_picture(path)
    path.write_bytes(data[: int(cut * len(data))])
    try:
        # All pixels may lie before the cut: a PNG lacks only its end mark then.
        assert np.array_equal(read_picture(path), whole)
    except PictureError as error:
        assert "\n" not in error.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_damage_ends_in_a_picture_or_one_line(
    tmp_path: Path, noise: np.ndarray, kind: str, place: float, value: int
) -> None:
    data = bytearray(encoded(Image.fromarray(noise), kind))
    data[int(place * len(data))] = value
    path = tmp_path / "damaged"
    path.write_bytes(data)
    try:
        assert read_picture(path).dtype == np.uint8
    except PictureError as error:
        assert "\n" not in error.message


@pytest.mark.parametrize("limit", [600, 100])
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("L", (40, 20)), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    error = refused(path)
    assert "too large" in error.message and str(limit) in (error.hint or "")


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (1, 1)])
def test_write_png_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "new" / "out.png"
    write_png(path, array)
    assert np.array_equal(np.array(Image.open(path)), array)
    assert [p.name for p in path.parent.iterdir()] == ["out.png"]


def test_write_png_mask_is_black_and_white(tmp_path: Path) -> None:
    write_png(tmp_path / "mask", np.array([[True, False]]))
    image = Image.open(tmp_path / "mask")
    assert image.format == "PNG" and np.array(image).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    "array", [np.zeros((3, 3)), np.zeros((3, 3, 4), np.uint8), np.zeros(3, bool), np.zeros((0, 3), np.uint8)]
)
def test_write_png_refuses_other_arrays(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(UsageError):
        write_png(tmp_path / "out.png", array)
    assert not list(tmp_path.iterdir())


def test_write_png_says_when_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_png(tmp_path / "file" / "out.png", np.zeros((2, 2), np.uint8))


def test_overlay_draws_mask_prompt_and_nothing_else() -> None:
    image = np.full((200, 300, 3), 100, dtype=np.uint8)
    mask = np.zeros((200, 300), dtype=bool)
    mask[50:150, 60:160] = True
    before = image.copy()
    drawn = overlay(image, mask, [(100, 100), (250, 50)], [1, 0], (40, 30, 220, 170))
    assert np.array_equal(image, before) and drawn.dtype == np.uint8 and drawn.shape == image.shape
    assert drawn[100, 100].argmax() == 1 and drawn[50, 250].argmax() == 0
    assert drawn[80, 80].argmax() == 2
    assert (drawn[50, 60:160] > 200).all()
    assert (drawn[30, 40:220] == drawn[169, 219]).all() and drawn[30, 40, 2] < 60
    assert (drawn[:20] == 100).all() and (drawn[180:] == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2000, 3)])
def test_overlay_of_narrow_pictures(size: tuple[int, int]) -> None:
    height, width = size
    drawn = overlay(
        np.zeros((*size, 3), np.uint8),
        np.ones(size, bool),
        [(0, 0), (width, height)],
        None,
        (0, 0, width, height),
    )
    assert drawn.shape == (*size, 3)


def test_overlay_refuses_what_does_not_fit() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(UsageError):
        overlay(image, np.zeros((5, 4), bool))
    with pytest.raises(UsageError):
        overlay(image, np.zeros((4, 5), bool), [(1, 1)], [1, 0])
