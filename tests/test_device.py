"""The kernel's side of a device against the VFIO uAPI (facts sheet section 6)."""
from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim.device import KernelDevice, arcs
from migsim.scenario import DeviceScript

STATES = ("RUNNING", "RUNNING_P2P", "STOP", "PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "RESUMING")
SAVING = ("PRE_COPY", "PRE_COPY_P2P", "STOP_COPY")
ALL = 7  # STOP_COPY, P2P, PRE_COPY
MS = 1_000_000


def device(triggers: tuple = (), v2: bool = True, **script: object) -> KernelDevice:
    """A device in PRE_COPY whose session began at 0."""
    kernel = KernelDevice(DeviceScript(**script), triggers)
    if v2:
        kernel.set_precopy_info_v2()
    assert kernel.set_state("PRE_COPY", 0)[0] == 0
    return kernel


def info(kernel: KernelDevice, ms: float = 0, at_stop: bool = False) -> tuple:
    return kernel.precopy_info(round(ms * MS), at_stop)


# --- states and arcs (6.2) ---

@pytest.mark.parametrize("old, new, path", [
    ("PRE_COPY", "STOP_COPY", ("PRE_COPY_P2P", "STOP_COPY")), ("PRE_COPY", "STOP", ("RUNNING", "RUNNING_P2P", "STOP")),
    ("STOP_COPY", "RUNNING", ("STOP", "RUNNING_P2P", "RUNNING")),
    ("RUNNING", "RESUMING", ("RUNNING_P2P", "STOP", "RESUMING")),
    ("RESUMING", "RUNNING", ("STOP", "RUNNING_P2P", "RUNNING")), ("RUNNING", "RUNNING", ())])
def test_combined_transitions(old: str, new: str, path: tuple) -> None:
    assert arcs(old, new, ALL) == path


@pytest.mark.parametrize("flags", [ALL, 5, 3, 1])
def test_what_is_not_permitted(flags: int) -> None:
    """No way back from STOP_COPY to precopy: why a late request has to fail the migration."""
    assert arcs("STOP_COPY", "PRE_COPY", flags) is None and arcs("STOP_COPY", "PRE_COPY_P2P", flags) is None


def test_an_illegal_arc_is_einval_and_changes_nothing() -> None:
    kernel = device()
    kernel.set_state("STOP_COPY", 0)
    assert kernel.set_state("PRE_COPY", 0) == (errno.EINVAL, 0) and kernel.state == "STOP_COPY"


@pytest.mark.parametrize("flags", [ALL, 5, 3, 1])
def test_states_that_a_device_does_not_have_are_never_entered(flags: int) -> None:
    lacking = {s for s in STATES if (s.endswith("P2P") and not flags & 2) or (s.startswith("PRE") and not flags & 4)}
    for old in set(STATES) - lacking:
        for new in STATES:
            path = arcs(old, new, flags)
            assert path is None or not lacking & set(path)
            assert new not in lacking or path is None
            if path and (old, new) != ("PRE_COPY", "STOP_COPY"):
                assert not set(path[:-1]) & set(SAVING)


@given(st.lists(st.sampled_from(STATES), max_size=12), st.booleans(), st.booleans(), st.sampled_from(("", *STATES)))
def test_data_fd_is_open_in_saving_and_resuming_alone(steps: list[str], p2p: bool, precopy: bool, fails: str) -> None:
    """Facts sheet 16 #7, whatever is asked for and whatever fails."""
    kernel = KernelDevice(DeviceScript(p2p=int(p2p), precopy=int(precopy), fail_state=fails))
    for step in steps:
        error, ns = kernel.set_state(step, 0)
        assert ns >= 0 and (error != 0 or kernel.state == step)
        assert kernel.data_fd == (kernel.state in (*SAVING, "RESUMING"))


def test_a_failing_transition_leaves_it_on_the_path() -> None:
    kernel = KernelDevice(DeviceScript(fail_state="RUNNING", start_ms=3))
    assert kernel.set_state("RESUMING", 0) == (0, 0)
    assert kernel.set_state("RUNNING", 0) == (errno.EIO, 3 * MS) and kernel.state == "RUNNING_P2P"
    kernel.reset()
    assert (kernel.state, kernel.data_fd) == ("RUNNING", False)


def test_transitions_take_their_time() -> None:
    kernel = device(stop_ms=7, resume_ms=5, start_ms=2)
    assert kernel.set_state("STOP_COPY", 0) == (0, 7 * MS)
    assert kernel.set_state("STOP", 0) == (0, 0)
    assert kernel.set_state("RESUMING", 0) == (0, 5 * MS) and kernel.set_state("RUNNING", 0) == (0, 2 * MS)


# --- features (6.1) ---

def test_mig_flags() -> None:
    assert [KernelDevice(DeviceScript(precopy=a, p2p=b)).mig_flags for a in (0, 1) for b in (0, 1)] == [1, 3, 5, 7]


@pytest.mark.parametrize("script, error", [({}, 0), ({"v2": 0}, errno.ENOTTY), ({"v2_errno": 5}, 5)])
def test_feature_12(script: dict, error: int) -> None:
    kernel = KernelDevice(DeviceScript(**script))
    assert kernel.set_precopy_info_v2() == error and kernel.v2 == (not error)


def test_mig_data_size_with_a_hold() -> None:
    kernel = device(stopcopy=100, size_hold=1000, dirty_until=50)
    assert [kernel.data_size(ms * MS)[1] for ms in (0, 49, 50)] == [1100, 1100, 100]
    assert KernelDevice(DeviceScript(stopcopy=100, size_hold=1000, dirty_until=50)).data_size(0) == (0, 100)
    assert KernelDevice(DeviceScript(size_errno=5)).data_size(0) == (5, 0)


# --- precopy info and the stream (6.3) ---

@pytest.mark.parametrize("state", [s for s in STATES if not s.startswith("PRE_COPY")])
def test_precopy_info_outside_precopy_is_einval(state: str) -> None:
    kernel = KernelDevice(DeviceScript())
    kernel.set_state(state, 0)
    assert info(kernel) == (errno.EINVAL, 0, 0, False) and kernel.queries == 0


def test_sizes_fall_as_data_are_read() -> None:
    kernel = device(initial=100, dirty=50)
    assert info(kernel) == (0, 100, 50, False)
    assert kernel.read(60, 0) == (60, "I", False) and info(kernel)[1:3] == (40, 50)
    assert kernel.read(60, 0) == (40, "I", True) and info(kernel)[1:3] == (0, 50)
    assert kernel.read(60, 0) == (50, "D", True) and info(kernel)[1:3] == (0, 0)
    assert kernel.read(60, 0) is None  # ENOMSG: more may come


def test_reinit_drops_dirty_data_and_shows_until_it_is_read() -> None:
    kernel = device((("t", 20, 30),), initial=100, dirty=50)
    kernel.read(100, 0)
    assert info(kernel, 19) == (0, 0, 50, False)
    assert info(kernel, 20) == (0, 30, 0, True) and info(kernel, 21) == (0, 30, 0, True)
    assert kernel.read(99, 0) == (30, "R", True) and info(kernel, 22) == (0, 0, 0, False)
    assert kernel.announced == 2


def test_without_infov2_a_new_chunk_is_dirty_data() -> None:
    kernel = device((("t", 20, 30),), v2=False, initial=100, dirty=50)
    kernel.read(100, 0)
    assert info(kernel, 20) == (0, 0, 80, False)


def test_reinit_flag_once() -> None:
    kernel = device((("t", 0, 30),), initial=100, reinit_flag_once=1)
    assert [info(kernel)[3] for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("trigger, seen", [
    (("info", 2, 9), [False, True, True]), (("after", 10, 9), [False, False, True]), (("gap", 0, 9), [False] * 3),
    (("rd", 1, 9), [False, False, True])])
def test_triggers(trigger: tuple, seen: list[bool]) -> None:
    """Asked at 0 ms, 5 ms, and after reading all at 5 ms and then again at 20 ms."""
    kernel = device((trigger,), initial=100)
    got = [info(kernel, 0)[3], info(kernel, 5)[3]]
    kernel.read(100, 5 * MS)
    got.append(info(kernel, 20)[3])
    assert got == seen
    if trigger[0] == "gap":
        assert info(kernel, 21, at_stop=True)[3]


def test_failing_and_wrong_answers() -> None:
    kernel = device(info_fail_at=2, info_errno=11)
    assert [info(kernel)[0] for _ in range(3)] == [0, 11, 11]
    gap = device(info_fail_gap=1)
    assert info(gap)[0] == 0 and info(gap, at_stop=True)[0] == errno.EIO
    absurd = device(bogus_at=2, bogus_init=1 << 63)
    assert [info(absurd)[1] for _ in range(3)] == [65536, 1 << 63, 65536]


def test_dirty_floor_is_topped_up_until_its_time() -> None:
    kernel = device(initial=0, dirty=10, dirty_floor=40, dirty_until=5)
    assert [info(kernel, ms)[2] for ms in (0, 4)] == [40, 40]
    kernel.read(99, 0)
    assert info(kernel, 5)[2] == 0


def test_stop_copy_never_gives_enomsg() -> None:
    """6.3: the end there is for good; unread precopy data come first."""
    kernel = device(initial=10, stopcopy=5, rec=3)
    kernel.set_state("STOP_COPY", 0)
    assert [kernel.read(99, 0) for _ in range(4)] == [(10, "I", True), (3, "S", True), (2, "S", True), (0, "", False)]


def test_a_session_ends_with_what_it_has_not_read() -> None:
    kernel = device((("t", 0, 7),), initial=10, once_only_session=1)
    assert info(kernel)[3]
    kernel.set_state("RUNNING", 0)
    kernel.set_state("PRE_COPY", 0)
    assert info(kernel) == (0, 10, 0, False)  # a fresh session: all over again, and REINIT in the first alone


# --- loading ---

def test_a_load_takes_its_time_when_the_record_is_complete() -> None:
    kernel = KernelDevice(DeviceScript(load_init_ms=4, load_reinit_ms=3, load_dirty_ms=2, load_stop_ms=1))
    assert kernel.write("I", False) == (0, 0) and kernel.loaded == 0
    assert [kernel.write(kind, True) for kind in "IRDS"] == [(0, n * MS) for n in (4, 3, 2, 1)]
    assert kernel.loaded == 2


def test_a_failing_load() -> None:
    kernel = KernelDevice(DeviceScript(fail_load=2))
    assert [kernel.write("S", True)[0] for _ in range(3)] == [0, errno.EIO, 0]


def test_copies_are_independent() -> None:
    kernel = device(initial=10)
    copy = kernel.copy()
    kernel.read(10, 0)
    assert copy.unread == (("I", 10),) and copy.key() != kernel.key()
