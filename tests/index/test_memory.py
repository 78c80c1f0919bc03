"""The memory that is left is that of the machine, or of the narrowest control group."""

from pathlib import Path

import pytest

from pipeline.index.memory import find_available

MB = 10**6


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine that has 8 GB left."""
    write(tmp_path / "proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:    7812500 kB\n")
    return tmp_path


def available(machine: Path) -> int | None:
    return find_available(machine / "proc", machine / "groups")


def add_group(machine: Path, path: str, most: str, used: int, pages: int = 0) -> None:
    folder = machine / "groups" / path
    write(folder / "memory.max", f"{most}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {pages}\nactive_file 1\n")


def test_a_machine_without_limits_has_what_it_says(machine: Path) -> None:
    assert available(machine) == 8_000 * MB
    write(machine / "proc/self/cgroup", "0::/user.slice\n")
    add_group(machine, "user.slice", "max", 5_000 * MB)
    assert available(machine) == 8_000 * MB


@pytest.mark.parametrize(
    ("own", "above", "left"), [(3_000, 6_000, 2_000), (6_000, 3_000, 2_000), (12_000, 12_000, 8_000)]
)
def test_the_narrowest_group_counts(machine: Path, own: int, above: int, left: int) -> None:
    write(machine / "proc/self/cgroup", "0::/pods/one\n")
    add_group(machine, "pods/one", str(own * MB), 1_000 * MB)
    add_group(machine, "pods", str(above * MB), 1_000 * MB)
    assert available(machine) == pytest.approx(left * MB, abs=2)


def test_pages_of_files_count_as_left(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/pods/one\n")
    add_group(machine, "pods/one", str(3_000 * MB), 2_900 * MB, pages=1_400 * MB)
    assert available(machine) == pytest.approx(1_500 * MB, abs=2)


def test_a_container_knows_its_own_group_by_a_path_outside(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/../../pods/other\n")
    add_group(machine, "", str(3_000 * MB), 1_000 * MB)
    assert available(machine) == pytest.approx(2_000 * MB, abs=2)


def test_older_groups_count(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "9:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    folder = machine / "groups/memory"
    write(folder / "memory.limit_in_bytes", f"{3_000 * MB}\n")
    write(folder / "memory.usage_in_bytes", f"{2_500 * MB}\n")
    write(folder / "memory.stat", f"inactive_file 7\ntotal_inactive_file {400 * MB}\ntotal_active_file {100 * MB}\n")
    assert available(machine) == 1_000 * MB


def test_other_systems_do_not_say(tmp_path: Path) -> None:
    assert available(tmp_path) is None
    assert find_available() != 0
