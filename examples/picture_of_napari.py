"""Open a result in napari, with its plugin napari-ome-zarr, and make a picture of the window.

    pip install "napari[all]" napari-ome-zarr
    xvfb-run -a python examples/picture_of_napari.py out/CMU-1-Small-Region.seg.ome.zarr [PICTURE]

Fails where the labels are not found, or do not lie over the image in micrometres.
"""

import sys
from pathlib import Path

import napari
from PIL import Image

SIZE = (1200, 760)


def main(store: Path, picture: Path) -> None:
    viewer = napari.Viewer(show=False)
    window = viewer.window._qt_window  # the public interface has no size
    window.resize(*SIZE)
    window.show()
    layers = viewer.open(str(store), plugin="napari-ome-zarr")
    for layer in layers:
        layer.visible = True
        print(f"{layer.name}: {type(layer).__name__}, {layer.multiscale=}, {layer.scale}, {layer.units}")
    labels = [layer for layer in layers if isinstance(layer, napari.layers.Labels)]
    if len(labels) != 1:
        sys.exit(f"{store}: napari found {len(labels)} layers of labels, not one")
    colours = {label: labels[0].get_color(label) for label in (1,)}
    print(f"colours {colours}")
    viewer.scale_bar.visible = True
    viewer.reset_view()
    viewer.layers.selection.active = labels[0]
    napari.qt.get_qapp().processEvents()
    shot = viewer.screenshot(canvas_only=False, flash=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shot[..., :3]).save(picture, quality=88)
    viewer.close()


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]), Path(given[1] if len(given) > 1 else "docs/images/napari.jpg"))
