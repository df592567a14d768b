"""What a collection removes: properties of the plan, whatever there is and whatever is missing."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from model_registry.disk_space.candidates import Candidate, RemovalStage
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import DiskLimits, Shortfall, arithmetic, shortfall, warnings
from model_registry.disk_space.planning import plan_collection
from model_registry.disk_space.usage import HomeUsage, KindUsage

candidates = st.lists(
    st.builds(
        Candidate,
        kind=st.sampled_from(StorageKind),
        stage=st.sampled_from(RemovalStage),
        name=st.integers(0, 10**6).map(str),
        size_bytes=st.integers(0, 1000),
        last_used_s=st.floats(0, 100),
        why=st.just("a reason"),
        is_due=st.booleans(),
        in_use=st.sampled_from([None, "it is needed"]),
    ),
    max_size=30,
    unique_by=lambda each: each.name,
)
shortfalls = st.builds(
    Shortfall,
    kinds=st.dictionaries(st.sampled_from(StorageKind), st.integers(0, 3000)),
    home_bytes=st.integers(0, 3000),
    free_bytes=st.integers(0, 3000),
)


def left_missing(missing: Shortfall, removed: Sequence[Candidate]) -> Shortfall:
    for each in removed:
        missing = missing.after(each.kind, each.size_bytes)
    return missing


@given(candidates, shortfalls)
def test_nothing_in_use_goes_and_everything_due_does(found: list[Candidate], missing: Shortfall) -> None:
    planned = plan_collection(found, missing)
    assert all(each.in_use is None for each in planned)
    assert {each.name for each in found if each.is_due and each.in_use is None} <= {each.name for each in planned}
    assert len(planned) == len(set(planned))


@given(candidates, shortfalls)
def test_what_is_worth_least_goes_first(found: list[Candidate], missing: Shortfall) -> None:
    planned = plan_collection(found, missing)
    order = [(each.stage, each.last_used_s) for each in planned]
    assert order == sorted(order)


@given(candidates, shortfalls)
def test_no_more_goes_than_is_missing(found: list[Candidate], missing: Shortfall) -> None:
    """Without the last of what was not due, something would be missing that it eases."""
    planned = plan_collection(found, missing)
    taken = [each for each in planned if not each.is_due]
    if taken:
        rest = left_missing(missing, [each for each in planned if each is not taken[-1]])
        assert rest.is_eased_by(taken[-1].kind)


@given(candidates, shortfalls)
def test_as_much_goes_as_can_where_something_stays_missing(found: list[Candidate], missing: Shortfall) -> None:
    planned = plan_collection(found, missing)
    rest = left_missing(missing, planned)
    kept = [each for each in found if each not in planned and each.in_use is None and each.size_bytes]
    assert not any(rest.is_eased_by(each.kind) for each in kept)


@given(candidates, shortfalls)
def test_a_second_collection_finds_nothing_to_do(found: list[Candidate], missing: Shortfall) -> None:
    planned = plan_collection(found, missing)
    kept = [each for each in found if each not in planned]
    assert plan_collection(kept, left_missing(missing, planned)) == ()


def usage(used: int, free: int, total: int = 1000) -> HomeUsage:
    kinds = {kind: KindUsage(kind) for kind in StorageKind} | {StorageKind.UPLOADS: KindUsage(StorageKind.UPLOADS, used, 1)}
    return HomeUsage(kinds, (), free, total)


def test_quotas_count_what_is_used_reserved_and_needed() -> None:
    limits = DiskLimits(max_bytes=150, kinds={StorageKind.UPLOADS: 100})
    need = {StorageKind.UPLOADS: 30}
    assert not shortfall(limits, usage(70, 500), {}, need).exists
    over = shortfall(limits, usage(70, 500), {StorageKind.UPLOADS: 20, StorageKind.JOBS: 40}, need)
    assert (over.kinds, over.home_bytes, over.free_bytes) == ({StorageKind.UPLOADS: 20}, 10, 0)


def test_the_file_system_keeps_what_must_stay_free() -> None:
    assert shortfall(DiskLimits(min_free_bytes=100), usage(0, 120), {}, {StorageKind.JOBS: 30}).free_bytes == 10
    assert DiskLimits(min_free_bytes=None).floor_bytes(1000) == 50
    assert DiskLimits(min_free_bytes=None).floor_bytes(1 << 40) == 2 << 30


def test_the_arithmetic_names_every_number() -> None:
    limits = DiskLimits(kinds={StorageKind.UPLOADS: 100_000_000})
    text = arithmetic(limits, usage(90_000_000, 10**9), {StorageKind.UPLOADS: 5_000_000}, {StorageKind.UPLOADS: 7_000_000})
    for part in ("7.0 MB", "disk.uploads_max_bytes", "100.0 MB", "90.0 MB", "5.0 MB"):
        assert part in text


def test_a_warning_comes_before_the_end() -> None:
    limits = DiskLimits(max_bytes=100, min_free_bytes=100)
    assert len(list(warnings(limits, usage(89, 500)))) == 0
    assert len(list(warnings(limits, usage(90, 150)))) == 2
    assert "new work is refused" in next(warnings(limits, usage(0, 99))).message
