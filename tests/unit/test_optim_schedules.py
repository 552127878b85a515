import pytest

from groundup.errors import SpecError
from groundup.optim.schedules import WSD, Constant, Cosine, Schedule

EVERY = [Constant(warmup=0.1), Cosine(warmup=0.1, final=0.1), WSD(warmup=0.1, decay=0.2, final=0.0)]
every_schedule = pytest.mark.parametrize("schedule", EVERY, ids=lambda s: type(s).__name__)


@every_schedule
def test_warmup_rises_in_a_line_to_the_peak(schedule):
    assert schedule.factor(0.0) == 0.0
    assert schedule.factor(0.025) == pytest.approx(0.25)
    assert schedule.factor(0.1) == pytest.approx(1.0)


@every_schedule
def test_no_factor_leaves_the_range_from_nothing_to_the_peak(schedule):
    factors = [schedule.factor((step + 0.5) / 1000) for step in range(1000)]
    assert min(factors) > 0.0 and max(factors) <= 1.0


@every_schedule
def test_the_rate_never_falls_in_the_warmup_nor_rises_after_it(schedule):
    factors = [schedule.factor(i / 1000) for i in range(1001)]
    assert factors[:101] == sorted(factors[:101])
    assert factors[100:] == sorted(factors[100:], reverse=True)


@every_schedule
def test_a_run_of_one_step_trains_at_a_rate_above_zero(schedule):
    assert schedule.factor(0.5) > 0.5


@every_schedule
def test_a_run_that_overran_its_time_stays_at_the_last_rate(schedule):
    assert schedule.factor(1.3) == schedule.factor(1.0)


@every_schedule
def test_without_warmup_the_first_step_is_at_the_peak(schedule):
    assert schedule.replace(warmup=0.0).factor(0.0) == 1.0


def test_cosine_is_halfway_down_in_the_middle_and_final_at_the_end():
    cosine = Cosine(warmup=0.2, final=0.1)
    assert cosine.factor(0.6) == pytest.approx(0.55)
    assert cosine.factor(1.0) == pytest.approx(0.1)


def test_wsd_is_stable_until_its_last_fifth_and_then_falls_in_a_line():
    wsd = WSD(warmup=0.0, decay=0.2, final=0.0)
    assert [wsd.factor(p) for p in (0.1, 0.5, 0.79)] == [1.0, 1.0, 1.0]
    assert [wsd.factor(p) for p in (0.85, 0.9, 1.0)] == pytest.approx([0.75, 0.5, 0.0])


def test_wsd_without_decay_is_constant():
    assert WSD(warmup=0.0, decay=0.0).factor(1.0) == 1.0


@pytest.mark.parametrize("kind", [Constant, Cosine, WSD])
@pytest.mark.parametrize("warmup", [2000, 1.0, -0.1])
def test_a_warmup_that_is_no_share_of_the_run_is_refused(kind, warmup):
    with pytest.raises(SpecError, match=r"warmup=.*share"):
        kind(warmup=warmup)


def test_warmup_and_decay_longer_than_the_run_are_refused():
    with pytest.raises(SpecError, match="longer than the run"):
        WSD(warmup=0.5, decay=0.6)


def test_a_schedule_is_read_back_from_plain_data():
    for schedule in EVERY:
        assert Schedule.from_dict(schedule.to_dict()) == schedule
