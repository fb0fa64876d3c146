"""How the films of a folder from elsewhere are read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What decides which files are read, and who their patients are."""

    group_by: str = "auto"  # as for the split job
    follow_links: bool = False
    trust_headers: bool = False  # read DICOM files that do not say that they are chest films
    max_pixels: int = 2**40
    seconds: float = 20.0  # to read one file

    @property
    def is_grouped(self) -> bool:
        """Whether `group_by` was chosen."""
        return self.group_by != "auto"
