"""Wheels of pure Python as bytes: the same files give the same bytes on every machine."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

WHEEL = """\
Wheel-Version: 1.0
Generator: kitlib
Root-Is-Purelib: true
Tag: py3-none-any
"""


def file_name(name: str, version: str) -> str:
    """What a wheel of this distribution is called."""
    return f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def dist_info(name: str, version: str) -> str:
    """Its folder of metadata."""
    return f"{name.replace('-', '_')}-{version}.dist-info"


def pack(files: dict[str, bytes], folder: str) -> bytes:
    """The wheel that installs these files.

    Args:
        files: contents by path, METADATA among them; WHEEL and RECORD are made here.
        folder: the folder of METADATA.
    """
    files = {**files, f"{folder}/WHEEL": WHEEL.encode()}
    files[f"{folder}/RECORD"] = _record(files, folder).encode()
    buffer = io.BytesIO()
    # Stored, as compressors differ from one zlib to the next.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items(), key=lambda item: (item[0].startswith(folder), item[0])):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # unix, whose rights follow
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _record(files: dict[str, bytes], folder: str) -> str:
    rows = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join(rows) + f"{folder}/RECORD,,\n"
