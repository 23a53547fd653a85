"""Where and when a frame was taken, as the competition's tables and file names tell it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

FRAMES_PER_SAMPLE = 2  # a position in a well is photographed on successive days

# Plates of the competition: name, vessel, first day, time of day.
PLATES = {
    "astro": ("astros[cereb]", 361, date(2020, 9, 12), "09h00m00s"),
    "cort": ("cort[density]", 376, date(2020, 10, 26), "13h30m00s"),
    "shsy5y": ("shsy5y[diff]", 714, date(2019, 6, 14), "11h30m00s"),
}
SPLITS = ("train", "test", "unlabelled")


@dataclass(frozen=True)
class Exposure:
    """When and where one frame was taken, in the columns of train.csv."""

    plate_time: str
    sample_date: str
    sample_id: str
    elapsed_timedelta: str

    @property
    def file_name(self) -> str:
        """The name of an unlabelled image: the sample with date and time put before the position's number."""
        place, phase = self.sample_id.split("_Ph_")
        return f"{place}_{self.sample_date}_{self.plate_time}_Ph_{phase}.png"


def exposure(category: str, split: str, index: int) -> Exposure:
    """The exposure of the frame number ``index`` (from 0) of its type in a split of ``SPLITS``."""
    plate, vessel, first, time = PLATES[category]
    sample, day = divmod(index, FRAMES_PER_SAMPLE)
    well, place = divmod(sample, 16)
    row, column = divmod(well, 12)
    vessel += 1000 * SPLITS.index(split)  # splits share no sample
    name = f"{plate}_{chr(ord('A') + row)}{column + 1}-{place // 4 + 1}_Vessel-{vessel}_Ph_{place % 4 + 1}"
    clock = time.replace("h", ":").replace("m", ":").rstrip("s")
    return Exposure(time, (first + timedelta(days=day)).isoformat(), name, f"0 days {clock}")
