import pytest

from tfbig.backend.pruning import schedules
from tfbig.compression.schedules import default_schedule, plan
from tfbig.errors import InvalidOption


@pytest.mark.parametrize("total", [2, 5, 33, 225, 10_000])
def test_the_default_schedule_ends_at_the_sparsity_with_time_to_heal(total):
    updates = plan(default_schedule(0.8, total), total)
    assert updates[0].step == 0
    assert updates[-1].sparsity == pytest.approx(0.8)
    assert updates[-1].step <= max(1, 0.6 * total)
    assert len(updates) <= 22 + 20  # 20 updates; fewer than 40 steps over 60% give one a step


def test_the_default_schedule_is_cubic():
    updates = plan(default_schedule(0.8, 1000), 1000)
    end = updates[-1].step
    for update in updates:
        assert update.sparsity == pytest.approx(0.8 - 0.8 * (1 - update.step / end) ** 3, abs=1e-6)


def test_a_plan_is_what_the_schedule_says_step_by_step():
    schedule = schedules().ConstantSparsity(0.5, begin_step=3, end_step=9, frequency=2)
    assert [(u.step, u.sparsity) for u in plan(schedule, 20)] == [(3, 0.5), (5, 0.5), (7, 0.5), (9, 0.5)]


def test_a_schedule_that_never_prunes_is_refused():
    with pytest.raises(InvalidOption, match="never prunes in the 10 steps"):
        plan(schedules().ConstantSparsity(0.5, begin_step=50), 10)
