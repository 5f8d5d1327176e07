"""Pictures that Pillow reads: PNG, TIFF, JPEG and the like."""

from pathlib import Path

from PIL import Image

from miram.errors import MiramError


def decode(path: Path) -> Image.Image:
    """A picture, decoded whole. Raises MiramError naming the file when it is missing, damaged or none."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise MiramError(f"The image {path} is missing.", "Run the stage `crops` again.") from error
    except Exception as error:  # a damaged picture makes Pillow raise nearly anything
        raise MiramError(
            f"The image {path} cannot be decoded: {error}.",
            "Mend or replace it; if the workflow has cut it, delete it and run the stage `crops` again.",
        ) from error
