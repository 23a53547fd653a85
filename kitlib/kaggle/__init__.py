"""The outside world: paths, downloads, the offline bundle, and detectron2's wheel."""
