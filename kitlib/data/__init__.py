"""Files of images and cells, read into ``Frame`` records: the competition, LIVECell, data of your own."""
