"""From frames to training samples: augmentation, copy-paste, mask targets, ignored areas."""
