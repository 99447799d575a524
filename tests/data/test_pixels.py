"""Pixels: whatever an image file holds, the model sees the right 8-bit RGB, or the file is refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from activelr_service.data.images import decode

WHITE = [255, 255, 255]


def pixels(image, suffix="PNG", turn=True, **options):
    """The decoded pixels of an image that is saved as a file."""
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return read(file.getvalue(), turn)


def read(content, turn=True):
    image = decode(io.BytesIO(content), "x", turn)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(bits, colors, row, transparent):
    """A PNG of one row, whose transparent value is in its own depth: Pillow does not write such files."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colors, 0, 0, 0))
    body = chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("<u2", "JPEG2000"), ("i4", "PPM")]
)
def test_16_bit_gray_is_divided_by_257(dtype, suffix):
    values = np.array([[0, 9000], [40000, 65535]], dtype)
    assert pixels(Image.fromarray(values), suffix)[..., 0].tolist() == [[0, 35], [156, 255]]


def test_12_bit_and_white_is_zero_tiffs_are_scaled_to_what_they_mean():
    def tiff(bits, photometric, content):
        tags = [(256, 3, 2), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 200)]
        tags += [(277, 3, 1), (278, 3, 1), (279, 4, len(content))]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
        return start.ljust(200, b"\0") + content

    assert read(tiff(12, 1, bytes([0xFF, 0xF8, 0x00])))[0, :, 0].tolist() == [255, 128]
    assert read(tiff(16, 0, struct.pack("<HH", 0, 9000)))[0, :, 0].tolist() == [255, 220]


def test_floats_of_0_to_1_are_scaled_and_all_others_are_refused():
    gray = np.array([[0, 0.2], [0.5, 1]], np.float32)
    assert pixels(Image.fromarray(gray), "TIFF")[..., 2].tolist() == [[0, 51], [128, 255]]
    for odd in (gray * 255, gray - 0.1, gray * np.nan):
        with pytest.raises(ValueError, match=r"^x cannot be decoded as an image: its pixels are floats outside 0 to 1"):
            pixels(Image.fromarray(odd), "TIFF")
    with pytest.raises(ValueError, match=r"^x cannot .* integers of unknown range"):
        pixels(Image.fromarray(np.array([[7, 70000]], np.int32)), "TIFF")


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "WEBP", "GIF", "ICO"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_lie_on_white(suffix, mode):
    if (mode, suffix) in {("P", "GIF"), ("P", "ICO"), ("P", "TIFF"), ("LA", "GIF")}:
        mode = "RGBA"  # Pillow does not write the transparency of such modes into these files
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((40, 40, 40, 255), (8, 8, 16, 16))
    found = pixels(image.convert(mode), suffix, **({"lossless": True} if suffix == "WEBP" else {}))
    assert found[0, 0].tolist() == WHITE
    assert found[15, 15].tolist() == [40, 40, 40]


def test_half_transparent_pixels_are_mixed_with_white():
    assert abs(int(pixels(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([9, 9, 9, 100, 100, 100])
    assert abs(int(pixels(palette, transparency=bytes([255, 51]))[0, 0, 0]) - (0.8 * 255 + 0.2 * 100)) <= 1
    assert pixels(palette, transparency=1)[0, 0].tolist() == WHITE


@pytest.mark.parametrize(("mode", "color"), [("1", 0), ("L", 7), ("RGB", (1, 2, 3))])
def test_a_single_transparent_color_lies_on_white(mode, color):
    assert pixels(Image.new(mode, (2, 2), color), transparency=color)[0, 0].tolist() == WHITE


@pytest.mark.parametrize(
    ("bits", "colors", "row", "transparent", "other"),
    [
        (2, 0, b"\xe0", struct.pack(">H", 3), 170),
        (4, 0, b"\x53", struct.pack(">H", 5), 51),
        (16, 0, struct.pack(">2H", 9000, 40000), struct.pack(">H", 9000), 156),
        (16, 2, struct.pack(">6H", *[9000] * 3, *[40000] * 3), struct.pack(">3H", *[9000] * 3), 156),
    ],
)
def test_the_transparent_value_of_a_png_is_in_its_own_depth(bits, colors, row, transparent, other):
    assert read(png(bits, colors, row, transparent))[0].tolist() == [WHITE, [other] * 3]


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0)), (2, (0, 1))])
def test_images_are_turned_as_their_exif_data_say(suffix, orientation, corner):
    image = Image.new("RGB", (48, 32))
    image.paste((255, 255, 255), (0, 0, 24, 16))
    exif = Image.Exif()
    exif[274] = orientation
    found = pixels(image, suffix, exif=exif)
    assert found.shape == ((48, 32, 3) if orientation in {6, 8} else (32, 48, 3))
    middle = found[found.shape[0] // 4 :: found.shape[0] // 2, found.shape[1] // 4 :: found.shape[1] // 2, 0]
    assert np.argwhere(middle > 128).tolist() == [list(corner)]
    if suffix != "TIFF":  # Pillow itself turns these
        assert pixels(image, suffix, turn=False, exif=exif).shape == (32, 48, 3)


def test_exif_data_that_cannot_be_read_are_warned_of_and_no_error(caplog):
    assert pixels(Image.new("RGB", (6, 4)), "PNG", exif=b"Exif\0\0garbagegarbage").shape == (4, 6, 3)
    assert "EXIF data of x cannot be read" in caplog.text


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_colors_of_other_spaces_become_rgb(mode):
    image = Image.new("RGB", (16, 16), (200, 40, 40))
    if mode == "LAB":
        spaces = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(image, *spaces, outputMode="LAB")
    else:
        image = image.convert(mode)
    for suffix in ("TIFF", "JPEG") if mode != "LAB" else ("TIFF",):
        np.testing.assert_allclose(pixels(image, suffix)[8, 8], (200, 40, 40), atol=4)


@pytest.mark.parametrize("suffix", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_read(suffix):
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (0, 255)]
    assert pixels(frames[0], suffix, save_all=True, append_images=frames[1:]).max() < 9


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "it is empty"), (b"hello", "its format is not known"), (b"GIF89a", "x cannot be decoded")],
)
def test_what_is_no_image_is_refused_with_the_remedy(content, reason):
    with pytest.raises(ValueError, match=rf"{reason}.*data\.on_corrupt: skip"):
        read(content)


def test_an_image_of_too_many_pixels_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"x cannot be decoded as an image: .*exceeds limit"):
        pixels(Image.new("RGB", (8, 8)))
