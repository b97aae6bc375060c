"""Which entries of folders lead to a file."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

from ext_proc.config.watch import changes, ways_to


def names(*files: Path) -> set[Path]:
    return {entry for entry, _ in ways_to(files)}


def test_a_plain_file_is_its_own_way(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    assert names(folder / "f.yaml") == {folder / "f.yaml"}


def test_every_link_on_the_way_counts(tmp_path: Path) -> None:
    mount = tmp_path.resolve()
    (mount / "..1").mkdir()
    (mount / "..1" / "f.yaml").write_text("x")
    (mount / "..data").symlink_to("..1")
    (mount / "f.yaml").symlink_to("..data/f.yaml")
    assert names(mount / "f.yaml") == {mount / "f.yaml", mount / "..data", mount / "..1" / "f.yaml"}
    before = ways_to([mount / "f.yaml"])
    os.rename(mount / "..1", mount / "..2")
    (mount / "..tmp").symlink_to("..2")
    os.replace(mount / "..tmp", mount / "..data")
    assert ways_to([mount / "f.yaml"]) != before


def test_links_may_be_absolute_climb_and_turn_in_circles(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    (folder / "real").mkdir()
    (folder / "up").symlink_to("real/../f.yaml")
    (folder / "absolute").symlink_to(folder / "up")
    assert names(folder / "absolute") == {folder / "absolute", folder / "up", folder / "f.yaml"}
    (folder / "circle").symlink_to("circle")
    assert names(folder / "circle") == {folder / "circle"}


def test_a_folder_that_is_replaced_is_another_way(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    before = ways_to([folder / "f.yaml"])
    # Kept, so that the new folder cannot get its inode.
    folder.rename(tmp_path / "old")
    assert ways_to([folder / "f.yaml"]) != before
    folder.mkdir()
    assert ways_to([folder / "f.yaml"]) != before


async def test_a_change_is_noticed_and_the_end_ends(tmp_path: Path) -> None:
    file, stop = tmp_path / "f.yaml", asyncio.Event()
    file.write_text("a")
    async with asyncio.timeout(60), aclosing(changes(lambda: [file], stop)) as found:
        # Whatever was missed before the watch began is looked for as well.
        writing = asyncio.get_running_loop().call_later(0.3, file.write_text, "b")
        await anext(found)
        writing.cancel()
        stop.set()
        assert [None async for _ in found] in ([], [None])


def test_what_can_be_no_files_name_is_a_way_that_leads_nowhere() -> None:
    assert ways_to([Path("/there is\0none/f"), Path("/none \ud800 either/f")]) == {
        (Path("/there is\0none/f"), 0),
        (Path("/none \ud800 either/f"), 0),
    }
