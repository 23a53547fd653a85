"""Mends detectron2's imports before any test module of this folder imports it."""

import kitlib.model  # noqa: F401
