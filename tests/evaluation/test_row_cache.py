"""What a judge saw is kept by the content of the images: looked at once, again when anything differs or is damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from icm_pipeline.evaluation.row_cache import RowCache


class Look:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> np.ndarray:
        self.times += 1
        return np.array([[0.1, 0.9], [float("nan"), float("nan")]])


@pytest.fixture
def cache(tmp_path: Path) -> RowCache:
    (tmp_path / "job").mkdir()
    return RowCache(tmp_path / "cache", tmp_path / "job")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    return [tmp_path / "a", tmp_path / "b"]


def test_the_same_images_are_looked_at_once(cache: RowCache, images: list[Path]) -> None:
    look = Look()
    first, second = (cache.rows(["judge"], images, look) for _ in range(2))
    assert look.times == 1
    assert np.array_equal(first, second, equal_nan=True)


def test_a_copy_of_the_images_elsewhere_is_not_looked_at_again(
    cache: RowCache, images: list[Path], tmp_path: Path
) -> None:
    look = Look()
    cache.rows(["judge"], images, look)
    copies = [Path(shutil.copy(path, tmp_path / f"copy of {path.name}")) for path in images]
    cache.rows(["judge"], copies, look)
    assert look.times == 1


@pytest.mark.parametrize("change", ["judge", "bytes", "order"])
def test_anything_else_is_looked_at_again(cache: RowCache, images: list[Path], change: str) -> None:
    look = Look()
    cache.rows(["judge"], images, look)
    if change == "bytes":
        images[0].write_bytes(b"other")
    cache.rows(["another" if change == "judge" else "judge"], images[::-1] if change == "order" else images, look)
    assert look.times == 2


def test_other_versions_of_the_libraries_look_again(
    cache: RowCache, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look()
    cache.rows(["judge"], images, look)
    monkeypatch.setattr("icm_pipeline.evaluation.row_cache.library_versions", lambda: {"torch": "of tomorrow"})
    cache.rows(["judge"], images, look)
    assert look.times == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_entry_is_made_again(cache: RowCache, images: list[Path], damage: object) -> None:
    look = Look()
    cache.rows(["judge"], images, look)
    (entry,) = cache.folder.glob("*/*")
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))  # type: ignore[operator]
    found = cache.rows(["judge"], images, look)
    assert look.times == 2
    assert np.array_equal(found, look(), equal_nan=True)
    assert entry.read_bytes() == whole


def test_a_look_that_fails_leaves_nothing(cache: RowCache, images: list[Path], tmp_path: Path) -> None:
    def fails() -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.rows(["judge"], images, fails)
    assert list((tmp_path / "job").iterdir()) == []
    assert not cache.folder.exists()
