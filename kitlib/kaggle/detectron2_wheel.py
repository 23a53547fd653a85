"""Wheels of pure Python: how files become one, and detectron2 0.6 as one that installs anywhere.

PyPI has no ``detectron2``. It has ``pb1-detectron2``, an sdist with the Python code and the zoo configs of
release 0.6 but without the C++ sources, so that its own ``setup.py`` cannot build. This module makes
``detectron2-0.6-py3-none-any.whl`` out of it without running any of its code.

It needs the standard library and pip's settings alone, so that it runs before anything is installed, from the
folder that holds ``kitlib``::

    python -m kitlib.kaggle.detectron2_wheel OUTDIR [--sdist FILE]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from kitlib.errors import KitError
from kitlib.files import atomic, stays_inside
from kitlib.kaggle.sdist import fetch

_WHEEL = """\
Wheel-Version: 1.0
Generator: kitlib
Root-Is-Purelib: true
Tag: py3-none-any
"""


def file_name(name: str, version: str) -> str:
    """The name of a distribution's wheel."""
    return f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def dist_info(name: str, version: str) -> str:
    """The folder of metadata in a distribution's wheel."""
    return f"{name.replace('-', '_')}-{version}.dist-info"


def pack(files: dict[str, bytes], folder: str) -> bytes:
    """The wheel that installs these files; the same files give the same bytes on every machine.

    Args:
        files: contents by path, METADATA among them; WHEEL and RECORD are made here.
        folder: the folder of METADATA.
    """
    files = {**files, f"{folder}/WHEEL": _WHEEL.encode()}
    files[f"{folder}/RECORD"] = _record(files, folder).encode()
    buffer = io.BytesIO()
    # Without compression, which differs from one zlib to the next.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items(), key=lambda item: (item[0].startswith(folder), item[0])):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            # A plain file of Unix with its permissions.
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _record(files: dict[str, bytes], folder: str) -> str:
    rows = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join(rows) + f"{folder}/RECORD,,\n"


# -------------------------------------------------------------------------------- detectron2

PROJECT = "pb1-detectron2"
VERSION = "0.6"
SDIST_NAME = f"{PROJECT}-{VERSION}.tar.gz"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
WHEEL_NAME = file_name("detectron2", VERSION)
_DIST_INFO = dist_info("detectron2", VERSION)

# Folders of the sdist and where they go, as in the `packages` and `package_dir` of its setup.py.
_FOLDERS = {
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

# What the code imports. Its own list also pins `black==21.4b2` and `iopath<0.1.10`, and names `future` and
# `pydot`, for caffe2 alone. OpenCV is imported too, but goes by several names (headless or not), so that
# naming one here would install a second copy beside the other; upstream leaves it out for the same reason.
REQUIRES = (
    "Pillow>=7.1",
    "PyYAML>=5.1",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch>=1.8",
    "torchvision>=0.9",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

_METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: FAIR's platform for object detection and segmentation (the Python part of release 0.6).
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.6
""" + "".join(f"Requires-Dist: {need}\n" for need in REQUIRES)


def build(folder: Path | str, sdist: Path | str | None = None) -> Path:
    """Write the wheel into ``folder`` and return its path.

    Args:
        folder: made when missing; a wheel of the same name in it is replaced.
        sdist: the file; None: it is fetched from the places that pip is set to use.

    Raises:
        KitError: the sdist cannot be fetched, or is not the pinned one, or ``folder`` cannot be written.
    """
    data = fetch(PROJECT, VERSION, SDIST_SHA256) if sdist is None else _read(Path(sdist))
    wheel = from_sdist(data)
    with atomic(Path(folder) / WHEEL_NAME) as temporary:
        temporary.write_bytes(wheel)
    return Path(folder) / WHEEL_NAME


def _read(sdist: Path) -> bytes:
    try:
        data = sdist.read_bytes()
    except OSError as error:
        raise KitError(f"cannot read {sdist}: {error.strerror}; give --sdist a {SDIST_NAME}") from error
    if hashlib.sha256(data).hexdigest() != SDIST_SHA256:
        raise KitError(f"{sdist} is not PyPI's {SDIST_NAME} (its sha256 differs); download it again")
    return data


def from_sdist(sdist: bytes) -> bytes:
    """detectron2's wheel as bytes.

    Raises:
        KitError: the archive is damaged, or holds a path that leaves its own folder.
    """
    files = _contents(sdist)
    wheel = {target: data for name, data in files.items() if (target := _target(name))}
    wheel[f"{_DIST_INFO}/LICENSE"] = files["LICENSE"]
    wheel[f"{_DIST_INFO}/METADATA"] = _METADATA.encode()
    return pack(wheel, _DIST_INFO)


def _contents(sdist: bytes) -> dict[str, bytes]:
    """The regular files of an sdist by their path below its top folder. Nothing is written to disk.

    Raises:
        KitError: the archive is damaged, or holds a link or a path that leaves its own folder.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(sdist), mode="r:gz") as archive:
            members = [member for member in archive.getmembers() if not member.isdir()]
            found = {_below_top(member): archive.extractfile(member) for member in members}
            return {name: file.read() for name, file in found.items() if file}
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise KitError(f"{SDIST_NAME} is damaged ({error}); download it again") from error


def _below_top(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    if not (member.isfile() and stays_inside(path) and len(path.parts) > 1):
        raise KitError(
            f"the sdist holds '{member.name}', which is not a plain file inside its folder; do not use it"
        )
    return str(PurePosixPath(*path.parts[1:]))


def _target(name: str) -> str | None:
    """Where a file of the sdist goes in the wheel, if anywhere."""
    for source, target in _FOLDERS.items():
        if name.startswith(f"{source}/"):
            return target + name[len(source) :]
    return None


def main() -> int:
    """Make the wheel, print its path."""
    parser = argparse.ArgumentParser(
        prog="python -m kitlib.kaggle.detectron2_wheel", description=f"Make {WHEEL_NAME}."
    )
    parser.add_argument("folder", metavar="OUTDIR", type=Path, help="where the wheel is written")
    parser.add_argument("--sdist", type=Path, help=f"a local {SDIST_NAME}, for a machine without network")
    arguments = parser.parse_args()
    try:
        print(build(arguments.folder, arguments.sdist))
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
