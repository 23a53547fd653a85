"""What the figures show, as plain records: errors, suspect annotations, recall, image quality, anchors."""
