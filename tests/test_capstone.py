"""The capstone's cases: each shows its own cause and no other, and has a cure that a run proves."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim.analysis import analyze
from migsim.capstone import CAUSES, CURES, WAYS, _cause, case, cured, diagnose

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
SEEDS = range(4 * len(WAYS))
CAUSE_OF = {"late": "late-request", "needless": "needless-abort", "schemes": "schemes-differ",
            "forgotten": "reinit-unheard", "one_sided": "capability-one-sided", "too_busy": "never-converges"}
CURE_OF = {"late": {"try-again"}, "needless": {"qemu-11.1"}, "schemes": {"new-scheme"}, "forgotten": {"new-scheme"},
           "one_sided": {"capability"}, "too_busy": {"downtime-limit"}}


def way(seed: int) -> str:
    return WAYS[seed % len(WAYS)].__name__


@pytest.mark.parametrize("seed", SEEDS)
def test_a_case_shows_its_cause_alone(seed: int) -> None:
    [found] = analyze(case(seed).journal)
    assert [name for name, cause in CAUSES.items() if cause.says(found)[0]] == [CAUSE_OF[way(seed)]]


@pytest.mark.parametrize("seed", range(len(WAYS)))
def test_only_the_cure_cures(seed: int) -> None:
    assert {cure for cure in CURES if cured(seed, cure)[0] == "moves"} == CURE_OF[way(seed)]


RECORDED = {"d-reinit-in-gap": ("late-request", set()),
            "l3-src-legacy-dst-new-2dev": ("schemes-differ", {"new-scheme"}),
            "l2-src-new-dst-legacy-2dev": ("schemes-differ", {"new-scheme"})}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_cases(name: str) -> None:
    folder, (cause, cures) = f"{RECORDINGS}/{name}", RECORDED[name]
    [found] = analyze(case(folder).journal)
    assert [key for key, known in CAUSES.items() if known.says(found)[0]] == [cause]
    assert {cure for cure in CURES if cured(folder, cure)[0] == "moves"} == cures


@pytest.mark.parametrize("name", ["b-one-reinit", "e-legacy-with-reinit-machine-11.0", "ram-no-cap"])
def test_a_migration_that_went_well_has_no_cause(name: str) -> None:
    [found] = analyze(case(f"{RECORDINGS}/{name}").journal)
    assert [key for key, known in CAUSES.items() if known.says(found)[0]] == []


def test_seeds_differ_and_repeat() -> None:
    assert case(2).config != case(8).config and case(2).journal != case(8).journal
    journal = case(2).journal
    case.cache_clear()
    assert case(2).journal == journal and journal.devices is None


@pytest.mark.parametrize("seed", range(len(WAYS)))
def test_a_right_diagnosis_passes(seed: int) -> None:
    cause, [cure] = CAUSE_OF[way(seed)], CURE_OF[way(seed)]
    patch = CAUSES[cause].patches[0]
    told = diagnose(seed, cause, patch, cure)
    assert told.passed and told.data.count(": yes.") == 3 and CAUSES[cause].why.split()[0] in told.data
    assert not diagnose(seed, cause, 3, cure).passed and "Log the approver" in diagnose(seed, cause, 3, cure).data


def test_a_wrong_diagnosis_is_told_the_evidence() -> None:
    told = diagnose(0, "needless-abort", 0, "wait").data
    assert "the final query collected" in told and told.count(": no.") == 3 and "Which patch changes" in told


def test_what_is_left_out_is_asked_for() -> None:
    told = diagnose(0)
    assert not told.passed and all(key in told.data for key in (*CAUSES, *CURES))


def test_another_word_is_one_line() -> None:
    with pytest.raises(ValueError, match="'weather': allowed is late-request, "):
        diagnose(0, cause="weather")
    with pytest.raises(ValueError, match="'sleep': allowed is try-again, "):
        diagnose(0, cure="sleep")


def test_nothing_from_a_log_acts() -> None:
    [found] = analyze(case(0).journal)
    found.error = "ACK was requested <script>"
    assert "<script>" not in _cause(found, "late-request")[1]
