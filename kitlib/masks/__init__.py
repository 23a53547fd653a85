"""Binary masks without pixels: run lengths, RLE, the competition's text, topology."""
