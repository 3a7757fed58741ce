import pytest
import tensorflow as tf

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


@pytest.mark.parametrize(("end", "last"), [(150, 100), (199, 100), (3, 0)])
def test_a_schedule_that_makes_its_last_update_too_early_is_refused(end, last):
    schedule = schedules().PolynomialDecay(0.0, 0.8, begin_step=0, end_step=end, frequency=100)
    with pytest.raises(
        InvalidOption, match=rf"leads to a sparsity of 0.8, .* is at step {last}, to 0[.\d]*\. Let"
    ):
        plan(schedule, 200)


def test_any_schedule_is_asked_where_it_leads():
    class Stairs(schedules().PruningSchedule):
        def __call__(self, step):
            return self._should_prune_in_step(step, 0, -1, self.every), tf.cast(step // 10, tf.float32) / 10

        def get_config(self):
            return {}

    stairs = Stairs()
    stairs.every = 5
    assert plan(stairs, 40)[-1].sparsity == pytest.approx(0.3)
    stairs.every = 29
    with pytest.raises(InvalidOption, match="sparsity of 0.3, .* at step 29, to 0.2"):
        plan(stairs, 40)


def test_a_schedule_that_never_prunes_is_refused():
    with pytest.raises(InvalidOption, match="never prunes in the 10 steps"):
        plan(schedules().ConstantSparsity(0.5, begin_step=50), 10)
