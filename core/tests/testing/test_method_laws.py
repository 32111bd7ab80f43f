"""Every law finds the fault planted for it, and nothing else; the sound pass."""

from __future__ import annotations

import pytest

from peftx.testing import check, laws_of

CORE = ("core.full", "core.head", "core.bitfit", "core.lora", "core.rslora", "core.dora")
SOUND = ("kit.gain", "kit.packed", "kit.banked", "kit.routed", "kit.bottleneck", "kit.scheduled")
CASES = ("linear", "encoder", "timm_vit")
#: fault -> the law that must find it, where their names differ
FINDS = {
    "not_shifted": "starts_as",
    "asleep": "gradients",
    "silent_option": "config",
    "lossy_option": "config",
    "heavy_option": "config",
    "loose_option": "config",
    "wordy_option": "config_errors",
}
FAULTS = (
    "starts_as not_shifted gradients asleep effect every_site forward merge base_untouched deterministic detach "
    "save_load packing deepcopy side_by_side mixing autocast bf16_base checkpointing counts explain kinds resume "
    "unbound silent_option lossy_option heavy_option loose_option wordy_option"
).split()
QUICK = [law.name for law in laws_of("method") if law.cost == "fast"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_by_its_law_alone(toys, fault):
    report = check(f"kit.{fault}", laws=QUICK, cases=["conv2d" if fault == "kinds" else "linear"])
    wanted = FINDS.get(fault, fault)
    assert report.broken_laws == (wanted,), report.render()
    assert not report.ok
    for outcome in report.failed:
        assert outcome.message and "\n" not in outcome.message
        # a mistake of the toy's own that comes up as an exception is told as such
        assert outcome.message.startswith("it raised") is (fault == "mixing")


@pytest.mark.slow
def test_slow_faults(toys):
    """A graph that breaks, and a process that differs: these laws take seconds, so they run here alone."""
    report = check("kit.compiled", laws=["compiled", "effect", "checkpointing"], cases=["linear"])
    assert report.broken_laws == ("compiled",)
    report = check("kit.ddp", laws=["ddp", "effect"], cases=["linear"])
    assert report.broken_laws == ("ddp",)


@pytest.mark.parametrize("method", SOUND)
def test_a_sound_toy_keeps_every_law(toys, method):
    report = check(method, cases=CASES, laws=QUICK)
    assert report.ok, report.render()
    assert not report.failed
    judged = {outcome.law for outcome in report.of("passed")}
    assert judged >= {"config", "kinds", "counts", "effect", "gradients", "resume", "save_load", "mixing"}
    assert ("packing" in judged) is (method == "kit.packed")
    assert ("unbound" in judged) is (method == "kit.scheduled")
    assert ("merge" in judged) is (method not in ("kit.routed", "kit.bottleneck"))


@pytest.mark.parametrize("method", CORE)
def test_the_methods_of_core_keep_every_law(method):
    cases = ("conv1d", "encoder_padded", "timm_vit")
    report = check(method, cases=cases, laws=QUICK)
    assert not report.failed, report.render()
    assert report.ok


def test_core_compiles_and_the_rest_of_the_slow_laws_hold():
    report = check("core.lora", laws=["compiled"], fast=True)
    assert report.ok and [outcome.case for outcome in report.outcomes] == ["linear"]
