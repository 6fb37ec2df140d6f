"""Every kind of picture becomes upright RGB; every bad one is a verdict, never a crash."""

import io
import os
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pictures import encoded, jpeg, pixels
from vislang.data.decode import Limits, decode, decode_sample, decode_scaled, shrink_factor
from vislang.data.sample import BadSample, Place, Sample


def reason(image, limits=Limits(), min_side=None) -> str:  # noqa: B008
    with pytest.raises(BadSample) as caught:
        decode(image, limits, min_side)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_format_gives_pillows_pixels(kind):
    data = encoded(pixels(1), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    got = decode(data)
    assert got.dtype == np.uint8
    assert got.flags.writeable and got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_of_every_coding_gives_pillows_pixels(options):
    data = jpeg(2, **options)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turns_as_pillow_does(orientation, kind):
    image = Image.fromarray(pixels(3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode(data), expected)


def test_a_broken_exif_block_does_not_cost_the_picture():
    data = jpeg(4, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode(data), decode(jpeg(4)))


def test_harmless_damage_is_left_to_pillow():
    """Bytes between two segments: libjpeg warns, every browser shows the picture."""
    data = jpeg(4)
    at = data.index(b"\xff\xdb")  # the first table
    with_extra = data[:at] + b"\x12\x34" + data[at:]
    np.testing.assert_array_equal(decode(with_extra), decode(data))


def test_grey_palette_and_cmyk_become_rgb():
    grey = Image.fromarray(pixels(5)).convert("L")
    for data in (encoded(grey, "JPEG"), encoded(grey, "PNG")):
        got = decode(data)
        assert got.shape == (48, 64, 3)
        assert (got[..., 0] == got[..., 1]).all() and (got[..., 1] == got[..., 2]).all()
    palette = Image.fromarray(pixels(5)).convert("P")
    np.testing.assert_array_equal(
        decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB"))
    )
    cmyk = encoded(Image.fromarray(pixels(5)).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(
        decode(cmyk), np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    image = Image.fromarray(pixels(6)).convert("RGBA")
    image.putalpha(Image.fromarray(np.zeros((48, 64), np.uint8)))
    if mode == "P":
        image = image.quantize(8)
    else:
        image = image.convert(mode)
    assert (decode(encoded(image, "PNG")) == 255).all()


def test_half_transparent_black_on_white_is_grey():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert set(np.unique(decode(encoded(image, "PNG")))) == {127}


def test_sixteen_bits_keep_their_range():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
    got = decode(encoded(Image.fromarray(ramp), "PNG"))
    np.testing.assert_array_equal(got[0, :, 0], np.arange(256))


def test_the_first_frame_counts():
    frames = [Image.fromarray(pixels(seed)).convert("P") for seed in (7, 8)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


def test_a_pillow_image_is_taken_as_it_is():
    np.testing.assert_array_equal(decode(Image.fromarray(pixels(9))), pixels(9))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_limits_are_checked_before_decoding(kind, monkeypatch):
    data = encoded(pixels(1, 100, 200), kind)
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("it decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it decoded"))
    assert reason(data, Limits(max_pixels=19_999)) == (
        "too many pixels: 200 x 100, max_pixels is 19,999"
    )
    assert reason(data, Limits(max_bytes=100)) == (
        f"file too large: {len(data):,} bytes, max_bytes is 100"
    )


def test_a_decompression_bomb_is_refused_by_its_header():
    """A PNG that claims 60,000 x 60,000 pixels in a few bytes."""
    chunk = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    head = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + chunk
    data = head + zlib.crc32(chunk).to_bytes(4, "big") + bytes(4) + b"IDAT" + bytes(4)
    assert reason(data).startswith("too many pixels: ")


def test_files_that_cannot_be_read_say_why(tmp_path):
    assert reason(tmp_path / "gone.jpg") == f"missing file: {tmp_path / 'gone.jpg'}"
    assert reason(tmp_path) == f"unreadable file: {tmp_path} is not a regular file"
    os.mkfifo(tmp_path / "pipe")  # would block for ever
    assert "not a regular file" in reason(tmp_path / "pipe")
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert reason(tmp_path / "empty.jpg") == "empty file: it has 0 bytes"
    assert reason(b"<html>404</html>") == "not an image: the format is not known"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_truncated_files_are_bad_samples(kind, part):
    data = encoded(pixels(1, 120, 160), kind)
    assert reason(data[: int(len(data) * part)]).split(":")[0] in {
        "truncated image", "cannot decode", "not an image",
    }  # fmt: skip


@settings(max_examples=150)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=40),
)
def test_damaged_bytes_never_do_worse_than_reject(kind, place, junk):
    data = bytearray(encoded(pixels(1, 20, 30), kind))
    at = int(place * len(data))
    data[at : at + len(junk)] = junk
    try:
        got = decode(bytes(data), Limits(max_pixels=10_000))
    except BadSample as bad:
        assert ":" in bad.reason
    else:
        assert got.ndim == 3 and got.shape[2] == 3 and got.shape[0] * got.shape[1] <= 10_000


def test_scaled_decoding_keeps_the_promised_side():
    data = jpeg(1, 400, 603)
    for min_side in (None, 401, 400, 201, 200, 100, 99, 50, 49, 8, 1):
        got = decode_scaled(data, Limits(), min_side)
        factor = shrink_factor(400, min_side)
        assert got.pixels.shape == (-(-400 // factor), -(-603 // factor), 3)
        assert got.full_size == (400, 603)
        assert min_side is None or min(got.pixels.shape[:2]) >= min(min_side, 400)


def test_scaled_decoding_knows_the_turned_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    got = decode_scaled(jpeg(1, 400, 603, exif=exif), Limits(), 100)
    assert got.full_size == (603, 400) and got.pixels.shape == (151, 100, 3)


def test_places_in_a_zip_are_read_without_extracting(tmp_path):
    data = jpeg(1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("stored", data, zipfile.ZIP_STORED)
        archive.writestr("packed", data, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for info in archive.infolist():
            method = "deflate" if info.compress_type else "stored"
            start = info.header_offset + 30 + len(info.filename)
            place = Place(tmp_path / "a.zip", start, info.compress_size, method, info.file_size)
            np.testing.assert_array_equal(decode(place), decode(data))


def test_a_zip_bomb_member_is_refused_before_it_is_inflated(tmp_path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(50_000_000)) + packer.flush()
    (tmp_path / "bomb").write_bytes(packed)
    honest = Place(tmp_path / "bomb", 0, len(packed), "deflate", 50_000_000)
    assert reason(honest, Limits(max_bytes=1_000_000)) == (
        "file too large: 50,000,000 bytes, max_bytes is 1,000,000"
    )
    liar = Place(tmp_path / "bomb", 0, len(packed), "deflate", 1000)
    tracemalloc.start()
    why = reason(liar)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000  # it was not inflated to find out
    tracemalloc.stop()
    assert why == f"damaged container: a member of {tmp_path / 'bomb'} is not of its promised size"


def test_a_cut_container_is_a_bad_sample(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 100)
    assert reason(Place(tmp_path / "a.tar", 90, 50, "stored", 50)) == (
        f"truncated container: {tmp_path / 'a.tar'} ends 40 bytes too early"
    )
    assert reason(Place(tmp_path / "gone", 0, 5, "stored", 5)).startswith("missing file: ")


def test_the_verdict_carries_id_and_origin():
    with pytest.raises(BadSample) as caught:
        decode_sample(Sample("s1", b"junk", origin="here:7"))
    assert (caught.value.id, caught.value.origin) == ("s1", "here:7")
    with pytest.raises(BadSample, match="no image: the sample has none"):
        decode_sample(Sample("s2", None))
