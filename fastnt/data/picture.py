"""Read a picture as a viewer shows it: its size and its pixels."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastnt.data.beton import Images
from fastnt.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
# A larger picture is refused as a decompression bomb if it also has ten times the bytes of its file.
_MOST = 64 << 20
_ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
_TURNS = {  # names of Pillow's Transpose that turn a picture upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class Head(NamedTuple):
    """A picture's size as a viewer shows it, and whether it is grey."""

    width: int
    height: int
    grey: bool


def decoder() -> str:
    """Return the name and version of the library that decodes pictures."""
    import PIL

    return f"Pillow {PIL.__version__}"


def load_decoders() -> None:
    """Import Pillow's decoders once, before threads use them."""
    from PIL import Image

    Image.init()


def look(path: Path) -> Head:
    """Return a picture's head without decoding it.

    Raises:
        UserError: the file is no picture, or the picture is too large for its file.
        OSError: the file cannot be read.
    """
    try:
        with _open(path) as image:
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
            return Head(width, height, image.mode in _GREY)
    except Exception as error:
        raise _broken(path, error) from error


def decode(path: Path, shape: tuple[int, ...], image_size: int = 0) -> Images:
    """Return a picture's pixels (H, W, C) uint8.

    Args:
        path: the file.
        shape: the shape that the pixels must have, with 1 or 3 channels.
        image_size: scale the square in the middle to so many pixels each way; 0 keeps everything.

    Raises:
        UserError: the picture cannot be decoded, or has another shape.
        OSError: the file cannot be read.
    """
    from PIL import Image

    try:
        with _open(path) as opened:
            turn = _TURNS.get(_orientation(opened))
            image = _opaque(opened, "L" if shape[2] == 1 else "RGB")
        if turn:
            image = image.transpose(Image.Transpose[turn])
        if image_size:
            side, size = min(image.size), (image_size, image_size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
            image = image.resize(size, Image.Resampling.BICUBIC, box=box)
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
    except Exception as error:
        raise _broken(path, error) from error
    if pixels.shape != shape:
        raise UserError(f"{path} has changed while it was read; begin again")
    return pixels


def _open(path: Path) -> "Image.Image":
    from PIL import Image

    image = Image.open(path, formats=_FORMATS)
    if image.width * image.height * 4 > _MOST + 10 * path.stat().st_size:
        image.close()
        raise ValueError(f"its {image.width} x {image.height} pixels are more than it can hold")
    return image


def _orientation(image: "Image.Image") -> int:
    """Return the EXIF orientation, 1 to 8; 1, which means upright, if it cannot be read."""
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        turned = exif.get(_ORIENTATION, 1)
    except Exception:
        return 1
    return turned if turned in _TURNS else 1


def _opaque(image: "Image.Image", mode: str) -> "Image.Image":
    """Return the picture in mode L or RGB; transparent parts become white."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit pixels, which convert() would clip
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert(mode)


def _broken(path: Path, error: Exception) -> Exception:
    """Return the error for a picture that cannot be decoded; errors of the system stay as they are."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if type(error).__name__ == "UnidentifiedImageError":
        return UserError(f"{path} is no picture, whatever its name says; remove it")
    return UserError(f"{path} cannot be decoded ({error}); remove it, or save it again")
