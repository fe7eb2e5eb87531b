"""README's moving picture: one robot, policies side by side, each trained on the same data by another method.

    v2a run demo method=iql_mixed; v2a run demo
    python -m benchmarks.before_after runs/demo-iql_mixed-seed0 runs/demo-v2a_residual-seed0 -o docs/before_after.gif

Every policy starts from the same state, that of the first evaluation episode. A film that ends early, because the robot
fell, holds its last picture. It prints the scores of the policies over all evaluation episodes, which the picture of
one episode cannot show.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.record import invocation
from v2a_ray.evaluation.video import FRAMES_PER_SECOND, frames, record
from v2a_ray.export.find import find_policy
from v2a_ray.files import read_json

WORDS = {
    "iql_mixed": "trained on everything",
    "iql_target": "trained on the target alone",
    "v2a": "V2A",
    "v2a_residual": "V2A, residual alignment",
    "v2a_supported": "V2A, supported",
}
HEIGHT, STRIDE, COLOURS = 26, 2, 32
"""Height of the words above a picture in pixels; one frame of so many is kept; colours of the palette."""


def main() -> None:
    """Record, join and write the film."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    films = [_film(run, asked.seconds) for run in asked.runs]
    pictures = [_joined(row) for row in itertools.islice(_side_by_side(films), 0, None, STRIDE)]
    first, *rest = [picture.quantize(COLOURS) for picture in pictures]
    duration = 1000 * STRIDE // FRAMES_PER_SECOND
    first.save(asked.output, save_all=True, append_images=rest, duration=duration, loop=0, optimize=True)
    print(f"`{invocation()}`: {len(pictures)} pictures, {asked.output.stat().st_size / 1e6:.1f} MB")


def _film(run: Path, seconds: float) -> list[Image.Image]:
    """One policy's episode with the method's name above it."""
    result: dict[str, Any] = read_json(run / "result.json")
    target, method = result["target"], result["method"]
    print(f"{method}: score {target['normalized_score_mean']:.1f} over {target['num_episodes']} episodes")
    found = find_policy(str(run))
    episode = record(found.act, found.domain, result["config"]["evaluation"]["seed"], seconds)
    return [_captioned(picture, WORDS.get(method, method)) for picture in frames(episode)]


def _captioned(picture_HWC: NDArray[np.uint8], words: str) -> Image.Image:
    height, width, _ = picture_HWC.shape
    whole = Image.new("RGB", (width, height + HEIGHT), "white")
    whole.paste(Image.fromarray(picture_HWC), (0, HEIGHT))
    ImageDraw.Draw(whole).text((10, 5), words, fill="#2b3a4d", font=ImageFont.load_default(15))
    return whole


def _side_by_side(films: list[list[Image.Image]]) -> list[list[Image.Image]]:
    """A list per moment; films that have ended hold their last picture."""
    longest = max(map(len, films))
    return [[film[min(moment, len(film) - 1)] for film in films] for moment in range(longest)]


def _joined(pictures: list[Image.Image]) -> Image.Image:
    whole = Image.new("RGB", (sum(each.width for each in pictures), pictures[0].height), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number * picture.width, 0))
    return whole


if __name__ == "__main__":
    main()
