"""A result in a few lines of HTML with a small picture, and the picture alone as PNG."""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path

from PIL import Image

from wsi_twostage.mask import MaskPyramid
from wsi_twostage.notebook.drawing import drawn
from wsi_twostage.pictures import level_within

SIDE_PX = 512  # longer side of the picture, at most


def png_of(store: MaskPyramid) -> bytes:
    """The slide with its mask as PNG, `SIDE_PX` at most."""
    return _encoded(store, "PNG")


def html_of(store: MaskPyramid, facts: Mapping[str, str]) -> str:
    """The same picture beside the name of the slide, its size, its classes and other ``facts``."""
    spec = store.spec
    name = Path(store.manifest["slide"]["path"]).name
    width, height = (size * spec.mpp / 1000 for size in (spec.width, spec.height))
    told = {
        "mask": f"{spec.width:,} x {spec.height:,} px at {spec.mpp:.4g} um/px",
        "slide": f"{width:.3g} x {height:.3g} mm",
        **facts,
    }
    classes = " ".join(
        f'<span style="color:rgb{colour}">&#9632;</span>&nbsp;{escape(one)}'
        for one, colour in zip(spec.classes, spec.colours, strict=True)
    )
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in told.items())
    picture = base64.b64encode(_encoded(store, "JPEG", quality=85)).decode()
    return (
        '<div style="display:flex;gap:1em;align-items:flex-start">'
        f'<img alt="{escape(name)} with its mask" src="data:image/jpeg;base64,{picture}">'
        f"<table><caption>{escape(name)}</caption>{rows}<tr><td>classes</td><td>{classes}</td></tr></table>"
        "</div>"
    )


def _encoded(store: MaskPyramid, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(drawn(store, level_within(store, SIDE_PX))).save(file, form, **options)
    return file.getvalue()
