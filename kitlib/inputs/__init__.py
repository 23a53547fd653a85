"""From records to training samples: random views, mixing of frames, mask targets, ignored areas."""
