"""Take the picture of an HTML file: `python docs/screenshot.py PAGE PICTURE`, with Chromium installed.

docs/figures/view-w-loop.png is that of the page of `dislobench view` for `dislobench run w-loop --preset quick`.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageOps

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # scenes without a graphics card
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="1300,760", metavar="WIDTH,HEIGHT", help="of the window, in pixels")
    options = parser.parse_args()
    with TemporaryDirectory() as profile:
        command = ["chromium", *FLAGS, f"--user-data-dir={profile}", f"--window-size={options.size}"]
        command += ["--virtual-time-budget=15000", f"--screenshot={options.picture.resolve()}"]
        subprocess.run([*command, options.page.resolve().as_uri()], check=True)
    with Image.open(options.picture) as picture:  # Chromium leaves room for the frame of a window below the page
        _, _, _, bottom = ImageOps.invert(picture.convert("RGB")).getbbox() or (0, 0, *picture.size)
        picture.crop((0, 0, picture.width, bottom + 10)).save(options.picture, optimize=True)


if __name__ == "__main__":
    main()
