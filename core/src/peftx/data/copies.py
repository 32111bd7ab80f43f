"""How the copy of a data set that was read stands to the one its authors published, in words a result carries.

A score on a part of a data set, or on files that somebody changed, compares with no published score and with none
of the whole set. So every loader of published data says what it read, and what it says travels with the result:
the name of such data in a record, a note on it, and whom it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from peftx.data.contract import Published

__all__ = ["Copy", "compare_copy", "named_whole"]


@dataclass(frozen=True, slots=True)
class Copy:
    """What was read.

    `kind`:
        "official": all files have the published checksums, or come out of an archive that has.
        "counted": the counts are the published ones; what is in the files was held to no checksum.
        "partial": there are fewer samples than published.
        "altered": there are more of them, or files whose published checksums are known have others.
    `detail`: what was found, as a clause without a full stop.
    """

    kind: Literal["official", "counted", "partial", "altered"]
    detail: str

    @property
    def whole(self) -> bool:
        """Whether figures on it may stand beside published ones."""
        return self.kind in ("official", "counted")

    def titled(self, name: str) -> str:
        """The name of the data set, with what it is where that is not the published whole."""
        return name if self.whole else f"{name} ({self.kind} copy)"

    def note(self, name: str) -> str:
        """One sentence for whoever reads a result on it; empty where there is nothing to warn of."""
        if self.whole:
            return ""
        article = "an" if self.kind == "altered" else "a"
        return f"{name} is {article} {self.kind} copy: {self.detail}; compare with no published figures"


def named_whole(name: str) -> bool:
    """Whether a name in a result, options behind it or not, is that of the published whole; see `Copy.titled`."""
    return not any(f" ({kind} copy)" in name for kind in ("partial", "altered"))


def compare_copy(
    published: Published, held: Mapping[str, int], checksums: bool | None, *, unit: str = "samples"
) -> Copy:
    """Say what a copy with `held` in each split is, before options such as `limit_train` take any away.

    `checksums`: True when every file was held to its published checksum and agrees, False when one disagrees, None
    when there is nothing to hold them to (loose images of an archive, say). `unit`: what is counted, in the plural.
    """
    differ: list[str] = []
    more = False
    for key, expected in published.counts.items():
        found = sum(held.get(name, 0) for name in key.split("+"))
        if found != expected:
            differ.append(f"{found:,} of {expected:,} {unit} in {key}")
            more = more or found > expected
    if differ:
        return Copy("altered" if more else "partial", ", ".join(differ))
    if checksums is None:
        return Copy("counted", "counts as published; the contents were held to no checksum")
    if checksums:
        return Copy("official", "its files have the published checksums")
    return Copy("altered", "counts as published, but files with other checksums")
