"""Every kind of source becomes an image that decodes to what it was; every bad one a clear error, quickly."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
import zlib
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.display import Image as Displayed
from matplotlib.figure import Figure
from PIL import Image as Pillow

from llm_magic import images
from llm_magic.errors import PromptError
from llm_magic.images.formats import header, media_type, png
from llm_magic.messages import Image

mpl.use("agg")


def picture(mode: str = "RGB", size: tuple[int, int] = (30, 20)) -> Pillow.Image:
    """Return an image whose pixels tell their place."""
    width, height = size
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 3).astype("uint8")
    return Pillow.fromarray(np.dstack([ramp, ramp[::-1], ramp.T.copy().reshape(height, width)])).convert(mode)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (30, 20), **options: Any) -> bytes:
    sink = BytesIO()
    picture(mode, size).save(sink, kind, **options)
    return sink.getvalue()


def decoded(image: Image) -> Pillow.Image:
    assert image.data is not None
    opened = Pillow.open(BytesIO(image.data))
    opened.load()
    return opened


def refused(value: Any) -> tuple[str, str]:
    with pytest.raises(PromptError) as caught:
        images.part(value, max_side=2048)
    return caught.value.message, caught.value.hint


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"exif": b"Exif\0\0" + encoded("JPEG")}),  # as a camera's thumbnail
    ("GIF", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0"}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_encoded_bytes_stay_as_they_are(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    data = encoded(kind, **options)
    expected = (Image(data, f"image/{kind.lower()}"), "")
    path = tmp_path / "picture.of.unknown.ending"
    path.write_bytes(data)
    assert images.part(data, max_side=30) == expected
    assert images.part(bytearray(data), max_side=30) == expected
    assert images.part(path, max_side=30) == expected
    assert images.part(str(path), max_side=30) == expected
    assert images.part(f"data:image/x;base64,{base64.b64encode(data).decode()}", max_side=30) == expected
    assert images.part(Displayed(data=data), max_side=30) == expected
    assert images.part(Image(data, "image/png"), max_side=30) == expected
    known = header(data)
    assert known is not None
    assert (known.width, known.height, known.whole) == (30, 20, True)


def test_a_url_stays_a_url() -> None:
    url = "https://example.org/a.png?x=1"
    assert images.part(url, max_side=10) == (Image(url=url), "")
    assert images.part(Displayed(url=url), max_side=10) == (Image(url=url), "")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_large_image_is_scaled_down_and_keeps_its_format(kind: str) -> None:
    image, note = images.part(encoded(kind, size=(400, 100)), max_side=100)
    assert image.media_type == f"image/{kind.lower()}"
    assert decoded(image).size == (100, 25)
    assert note == "The image was scaled down from 400 × 100 to 100 × 25 pixels."
    expected = picture("L", (400, 100)).resize((100, 25))
    assert abs(np.asarray(decoded(image).convert("L"), int) - np.asarray(expected, int)).mean() < 12


def test_a_scaled_photograph_stays_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it right
    image, _ = images.part(encoded("JPEG", size=(400, 100), exif=exif), max_side=100)
    assert decoded(image).size == (25, 100)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_other_formats_become_png(kind: str) -> None:
    image, note = images.part(encoded(kind), max_side=100)
    assert image.media_type == "image/png"
    assert np.array_equal(np.asarray(decoded(image)), np.asarray(picture()))
    assert note == f"The image was converted from {kind} to PNG."


def test_a_large_gif_becomes_png() -> None:
    image, note = images.part(encoded("GIF", size=(400, 100)), max_side=200)
    assert image.media_type == "image/png"
    assert decoded(image).size == (200, 50)
    assert note == "The image was scaled down from 400 × 100 to 200 × 50 pixels."


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_pil_images(mode: str) -> None:
    source = picture("L").convert("I").convert(mode) if mode == "I;16" else picture(mode)
    image, note = images.part(source, max_side=100)
    assert (image.media_type, decoded(image).size, note) == ("image/png", (30, 20), "")
    if mode in {"L", "RGB", "RGBA", "LA"}:
        assert np.array_equal(np.asarray(decoded(image)), np.asarray(source))


def test_a_pil_image_of_a_jpeg_file_stays_jpeg() -> None:
    opened = Pillow.open(BytesIO(encoded("JPEG", size=(300, 300))))
    image, note = images.part(opened, max_side=100)
    assert (image.media_type, decoded(image).size) == ("image/jpeg", (100, 100))
    assert note == "The image was scaled down from 300 × 300 to 100 × 100 pixels."


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4), (1, 1)])
def test_arrays(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, "uint8")
    for array in (pixels, pixels / 255, (pixels / 255).astype("float32")):
        image, note = images.part(array, max_side=100)
        assert (image.media_type, note) == ("image/png", "")
        assert np.array_equal(np.asarray(decoded(image)), pixels.reshape(shape[:2]) if shape[2:] == (1,) else pixels)


def test_views_and_bools() -> None:
    pixels = np.arange(600, dtype="uint16").astype("uint8").reshape(20, 30)
    image, _ = images.part(pixels[::-2, ::3], max_side=100)
    assert np.array_equal(np.asarray(decoded(image)), pixels[::-2, ::3])
    image, _ = images.part(pixels > 100, max_side=100)
    assert np.array_equal(np.asarray(decoded(image)), (pixels > 100) * 255)


def test_a_large_array_is_scaled_down() -> None:
    image, note = images.part(np.zeros((100, 400), "uint8"), max_side=40)
    assert decoded(image).size == (40, 10)
    assert note == "The array was scaled down from 400 × 100 to 40 × 10 pixels."


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4]), st.randoms())
def test_our_png_decodes_to_its_pixels(width: int, height: int, channels: int, random: Any) -> None:
    pixels = random.randbytes(width * height * channels)
    opened = Pillow.open(BytesIO(png(pixels, width, height, channels)))
    assert opened.size == (width, height)
    assert opened.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert opened.tobytes() == pixels


def test_a_figure_is_drawn_at_its_size() -> None:
    figure = Figure(figsize=(4, 3), dpi=100)
    axes = figure.subplots(1, 2)
    axes[0].plot([1, 2], color="#ff0000", linewidth=9)
    for value in (figure, axes[0], axes):
        assert value is axes or images.is_picture(value)
        image, note = images.part(value, max_side=2048)
        assert (image.media_type, decoded(image).size, note) == ("image/png", (400, 300), "")
        assert (np.asarray(decoded(image)) == (255, 0, 0, 255)).all(axis=2).any()
    assert figure.dpi == 100
    image, note = images.part(figure, max_side=200)
    assert decoded(image).size == (200, 150)
    assert note == "The figure was drawn at 50 instead of 100 dots an inch."


def test_what_is_a_picture_in_a_prompt() -> None:
    yes = [picture(), Displayed(data=encoded("PNG")), encoded("PNG"), Image(url="https://example.org"), Figure()]
    no = ["picture.png", Path("picture.png"), np.zeros((3, 3)), b"text", 3, Figure, None]
    assert [images.is_picture(value) for value in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "A int is no image."),
        (b"", "The image is empty."),
        (b"plain text", "The image is no image that can be read; it begins with b'plain text'."),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "The image is an SVG, which models do not take."),
        (encoded("PNG")[:-30], "The image is damaged or cut off."),
        (encoded("PNG")[:20], "The image is damaged or cut off."),
        (encoded("JPEG")[:-40], "The image is damaged or cut off."),
        (encoded("WEBP")[:-20], "The image is damaged or cut off."),
        ("s3://bucket/a.png", "s3: URLs of images are not read."),
        ("data:image/png;base64,???", "The data: URL of the image cannot be decoded."),
        ("data:nothing", "The data: URL of the image cannot be decoded."),
        (np.zeros((2, 2, 7), "uint8"), "An array of shape 2 × 2 × 7 is no image."),
        (np.zeros(5, "uint8"), "An array of shape 5 is no image."),
        (np.zeros((0, 5), "uint8"), "An array of shape 0 × 5 is no image."),
        (np.zeros((2, 2), "int64"), "An array of int64 is no image."),
        (np.array([[0, 255.0]]), "The array goes from 0 to 255; floats of an image are from 0 to 1."),
        (np.array([[0, np.nan]]), "The array goes from nan to nan; floats of an image are from 0 to 1."),
        (np.broadcast_to(np.uint8(1), (20_000, 20_000, 3)), "An array of 20000 × 20000 × 3 is too large for an image."),
    ],
)  # fmt: skip
def test_what_is_no_image(value: Any, message: str) -> None:
    said, hint = refused(value)
    assert said == message
    assert hint


def test_a_name_that_is_no_file_name() -> None:
    said, hint = refused("a\0b.png")
    assert said.startswith("The image a␀b.png cannot be read: ")
    assert "embedded null" in said  # the rest of the words are Python's, which differ by version
    assert hint


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chart.png").write_bytes(encoded("PNG"))
    assert refused("chrt.png") == ("There is no image chrt.png.", "Did you mean chart.png?")
    assert refused("no/chart.png") == ("There is no image no/chart.png.", "The folder no does not exist.")
    assert refused(tmp_path)[0] == f"The image {tmp_path} is no file."


def test_a_file_of_300_mb_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as opened:
        opened.write(encoded("PNG"))
        opened.truncate(300 * 2**20)
    start = time.perf_counter()
    assert refused(path) == (f"The image {path} has 300 MB; 64 MB are read at most.", "Scale it down first.")
    assert time.perf_counter() - start < 0.1
    data = bytes(300 * 2**20)
    start = time.perf_counter()
    assert refused(data)[0] == "The image has 300 MB."
    assert time.perf_counter() - start < 0.5


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    rows = zlib.compress(bytes(1000))
    body = pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", body), (b"IDAT", rows), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    assert refused(bomb) == ("The image has 60,000 × 60,000 pixels.", "100,000,000 are read at most: scale it down.")


def test_an_image_too_heavy_to_send() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (2000, 2000, 4), "uint8")
    heavy = np.concatenate([noise, noise])
    with pytest.raises(PromptError) as caught:
        images.part(heavy, max_side=10_000)
    assert caught.value.message == "The image has 31 MB; 20 MB can be sent."


@given(st.binary(max_size=64))
def test_headers_of_garbage(garbage: bytes) -> None:
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP"):
        assert media_type(start + garbage) is not None
        header(start + garbage)


def test_without_pillow() -> None:
    """Small images need no Pillow; where one must be scaled, the error names it."""
    program = (
        "import sys; sys.modules['PIL'] = None\n"
        "from llm_magic import images\n"
        "from llm_magic.images.formats import png\n"
        "from llm_magic.errors import PromptError\n"
        "data = png(bytes(100 * 100), 100, 100, 1)\n"
        "assert images.part(data, max_side=100)[0].data == data\n"
        "try:\n    images.part(data, max_side=50)\n"
        "except PromptError as error:\n    print(error)\n"
        "try:\n    images.part(b'BM..', max_side=50)\n"
        "except PromptError as error:\n    print(error.message)\n"
        "assert 'numpy' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ)  # noqa: S603 - our own program
    assert done.stdout.splitlines() == [
        "The image must be scaled down or converted, which needs Pillow.",
        "pip install pillow",
        "The image is no image that can be read; it begins with b'BM..'.",
    ]
