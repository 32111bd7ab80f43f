"""Data sets that their authors released as archives of loose files: where the parts lie, or how they get there.

The folders are those that torchvision's classes leave behind, so that what torchvision downloaded is found, and the
other way round. torchvision itself is not asked: its classes import torch, which `locate` may not; they open images
without turning them upright; and they take the first folder of the right name for a whole data set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftx.data.archives import extract
from peftx.data.contract import SPLITS, DataContext, Dataset, Published, Split
from peftx.data.copies import compare_copy
from peftx.data.fetch import Remote, fetch, verify
from peftx.errors import DataError
from peftx_vision.config.data import OfficialConfig, SplitConfig
from peftx_vision.data.listed import Listed, check_apart, splits_of

__all__ = ["Found", "Part", "Release", "assemble", "dataset_of", "hosted", "locate"]


@dataclass(frozen=True, slots=True)
class Part:
    """A folder or file of a data set.

    `path`: where it lies below the folder of the set. `remote`: the archive it comes in, or the file itself. `inside`:
    its path in the archive; empty when `remote` is the file. `wanted`: paths below `inside` that are taken out of the
    archive, by their beginnings; empty: all.
    """

    path: str
    remote: Remote
    inside: str = ""
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """A data set as released.

    `folders`: where below a data root its parts may lie, in order; `published`: its counts and classes; `most_bytes`:
    more than any of its archives unpacks to.
    """

    name: str
    folders: tuple[str, ...]
    parts: Mapping[str, Part]
    published: Published
    licence: str
    most_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Found:
    """Paths of the parts by name. `checked`: whether all of them were held to the published checksums."""

    paths: Mapping[str, Path]
    checked: bool

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]


def hosted(site: str, name: str, md5: str, size: int = 0) -> Remote:
    """A file of that name on a site; `size` in bytes, for the progress of the download alone."""
    return Remote(name, (site + name,), f"md5:{md5}", size)


def locate(release: Release, ctx: DataContext) -> Found:
    """Return the parts of the data set.

    Looked for in this order: all parts unpacked, below the data root; then each part by itself: unpacked in the cache,
    then its archive or file in the data root or the cache, then the download. Archives are held to the published
    checksum and unpacked into the cache.

    Raises DataError for a folder that has some of the parts, for a wrong checksum and for an archive without the part;
    NetworkError when there is nothing and no network.
    """
    root = ctx.checked_root()
    places = [] if root is None else [*(root / name for name in release.folders), root]
    names = {Path(folder).name for folder in release.folders}
    for place in places:
        # a root of another name may hold a folder called images for reasons of its own, but no file of these names
        own = place != root or place.name in names
        present = {
            name: place / part.path
            for name, part in release.parts.items()
            if (own or not part.inside) and _there(part, place)
        }
        missing = {name: part for name, part in release.parts.items() if name not in present}
        if not missing:
            return _held(release, present, {})
        if present and own:
            for part in missing.values():
                if not any((where / part.remote.name).is_file() for where in places):
                    raise DataError(
                        f"{place} has no {part.path}: the copy of {release.name} is incomplete; "
                        f"get {part.remote.name} from {part.remote.urls[0]} and put it beside"
                    )
            rest = {name: _part(release, part, places, ctx) for name, part in missing.items()}
            return _held(release, present, rest)
    return Found({name: _part(release, part, places, ctx) for name, part in release.parts.items()}, True)


def _there(part: Part, place: Path) -> bool:
    path = place / part.path
    return path.is_dir() if part.inside else path.is_file()


def _held(release: Release, present: Mapping[str, Path], rest: Mapping[str, Path]) -> Found:
    """What lies unpacked in a data root, and the rest: single files are held to their checksums, loose images cannot
    be."""
    parts = {name: release.parts[name] for name in present}
    for name, part in parts.items():
        if not part.inside:
            verify(present[name], part.remote)
    return Found({**present, **rest}, not any(part.inside for part in parts.values()))


def _part(release: Release, part: Part, places: Sequence[Path], ctx: DataContext) -> Path:
    cache = ctx.cache / release.name
    unpacked = cache / re.sub(r"\.(zip|tgz|tar\.gz)$", "", part.remote.name)
    if part.inside and (unpacked / part.inside).is_dir():
        return unpacked / part.inside
    at_hand = next((place for place in (*places, cache) if (place / part.remote.name).is_file()), None)
    offline = ctx.offline or at_hand is not None
    archive = fetch(part.remote, at_hand or cache, offline=offline, what=release.name)
    if not part.inside:
        return archive
    beginnings = tuple(
        f"{one.inside}/{wanted}"
        for one in release.parts.values()
        if one.remote == part.remote
        for wanted in one.wanted or ("",)
    )
    extract(
        archive,
        unpacked,
        wanted=lambda name: name.startswith(beginnings),
        most_bytes=release.most_bytes,
    )
    if not (unpacked / part.inside).is_dir():
        raise DataError(f"{archive} has no folder {part.inside}; get it again from {part.remote.urls[0]}")
    return unpacked / part.inside


def assemble(
    release: Release,
    found: Found,
    images: Path,
    parts: Mapping[str, Listed],
    config: SplitConfig | OfficialConfig,
    note: str,
) -> Dataset:
    """Return the data set of listed images, whose paths are below `images`.

    Raises DataError for an image that is missing or no image, and for one that is in two splits.
    """
    check_apart(parts)
    held = {name: len(part.files) for name, part in parts.items()}
    ordered = {name: parts[name] for name in SPLITS if name in parts}
    classes = release.published.classes
    splits, fingerprint = splits_of(images, ordered, classes, config.limit_train, config.split_seed)
    return dataset_of(release, found, splits, held, fingerprint, note)


def dataset_of(
    release: Release,
    found: Found,
    splits: Mapping[str, Split[Any]],
    held: Mapping[str, int],
    fingerprint: str,
    note: str,
) -> Dataset:
    """The data set with its card. `held`: how many samples each split has before any is left out by an option."""
    return Dataset(
        name=release.name,
        splits=splits,
        classes=release.published.classes,
        fingerprint=fingerprint,
        card={
            "source": release.published.source,
            "licence": release.licence,
            "synthetic": False,
            "verified": False,
            "note": note,
        },
        published=release.published,
        copy=compare_copy(release.published, held, found.checked or None),
    )
