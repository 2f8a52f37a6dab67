"""When schedules come, across changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from time import process_time
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.examples import up_to
from whenthen.schemas.calendar import next_after, occurrences
from whenthen.schemas.deployments import Schedule

BERLIN = "Europe/Berlin"
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
ZONES = st.sampled_from(
    [BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
)


def times(after: str, count: int, **fields: object) -> list[str]:
    start = datetime.fromisoformat(after)
    found = occurrences(Schedule(**fields), start, start + timedelta(days=40_000))
    return [at.strftime("%m-%dT%H:%M") for at in islice(found, count)]


def test_a_time_that_the_change_skips_comes_at_the_first_moment_after_it() -> None:
    found = times("2026-03-28T12:00Z", 3, cron="30 2 * * *", timezone=BERLIN)
    assert found == ["03-29T01:00", "03-30T00:30", "03-31T00:30"]


def test_a_time_that_comes_twice_counts_once() -> None:
    found = times("2026-10-24T12:00Z", 2, cron="30 2 * * *", timezone=BERLIN)
    assert found == ["10-25T00:30", "10-26T01:30"]


@pytest.mark.parametrize("fields", [{"cron": "0 * * * *"}, {"rrule": "FREQ=HOURLY;BYMINUTE=0;BYSECOND=0"}])
@pytest.mark.parametrize("after", ["2026-03-28T22:30Z", "2026-10-24T22:30Z"])
def test_an_hourly_schedule_comes_every_elapsed_hour(fields: dict[str, str], after: str) -> None:
    found = times(after, 6, timezone=BERLIN, **fields)
    assert [text[6:8] for text in found] == ["23", "00", "01", "02", "03", "04"]


def test_a_daily_interval_keeps_its_hour_on_the_wall() -> None:
    found = times("2026-10-24T00:00Z", 3, interval="1d", anchor="2026-01-01T09:00:00", timezone=BERLIN)
    assert found == ["10-24T07:00", "10-25T08:00", "10-26T08:00"]


def test_a_short_interval_counts_from_its_anchor() -> None:
    found = times("2026-01-01T00:00Z", 2, interval="90m", anchor="2026-01-01T00:10:00+01:00")
    assert found == ["01-01T00:40", "01-01T02:10"]


def test_an_anchor_in_the_future_is_the_first_time() -> None:
    assert times("2026-01-01T00:00Z", 1, interval="1h", anchor="2026-06-01T00:30:00Z") == ["06-01T00:30"]


def test_a_rule_with_a_count_or_an_end_runs_out() -> None:
    assert len(times("2026-01-01T00:00Z", 9, rrule="FREQ=DAILY;COUNT=3", anchor="2026-02-01T00:00:00Z")) == 3
    assert len(times("2026-01-01T00:00Z", 9, rrule="FREQ=DAILY;BYHOUR=9;UNTIL=20260103T120000Z")) == 3


def test_the_last_friday_of_the_month() -> None:
    rule = "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18;BYMINUTE=0;BYSECOND=0"
    assert times("2026-10-24T00:00Z", 2, rrule=rule) == ["10-30T18:00", "11-27T18:00"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cron": "61 * * * *"}, "out of range"),
        ({"cron": "* * * *"}, "has 4 fields"),
        ({"cron": "* * * * * *"}, "use an interval"),
        ({"cron": "H * * * *"}, "differ between machines"),
        ({"cron": "0 0 30 2 *"}, "never comes"),
        ({"cron": "@often"}, "not a cron macro"),
        ({"cron": "1," * 200 + "1 * * * *"}, "at most 256"),
        ({"cron": "* * * * *", "timezone": "Europe/Berln"}, "did you mean 'Europe/Berlin'"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "not a known IANA time zone"),
        ({"interval": "500ms"}, "shortest interval is 1s"),
        ({"rrule": "nonsense"}, "is not an rrule"),
        ({"rrule": "FREQ=FOO"}, "is not an rrule"),
        ({"rrule": "FREQ=SECONDLY"}, "use an interval"),
        ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}, "never comes"),
        ({"rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "never comes"),
        ({"rrule": "FREQ=HOURLY;INTERVAL=168;BYDAY=TU"}, "never comes"),
        ({"rrule": "FREQ=MINUTELY;INTERVAL=7;BYDAY=MO;BYHOUR=3;BYMINUTE=7"}, "never comes"),
        ({"rrule": "FREQ=MINUTELY;BYMONTH=2"}, "does not go with BYMONTH"),
        ({"rrule": "FREQ=DAILY;INTERVAL=99999999999999999999"}, "not a number from 1 to 1000"),
        ({"rrule": "FREQ=DAILY;COUNT=3"}, "COUNT needs a start"),
        ({"cron": "* * * * *", "interval": "1h"}, "found cron, interval"),
    ],
)
def test_a_schedule_that_can_not_be_understood_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule(**fields)


@given(
    MOMENTS,
    ZONES,
    st.sampled_from(
        [
            *(
                {"cron": text}
                for text in ("*/7 * * * *", "30 2 * * *", "0 1-3 * * 0", "59 23 28-31 * *", "0 */5 * * *")
            ),
            *({"interval": text} for text in ("61s", "1d", "7h")),
            *({"rrule": text} for text in ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "FREQ=HOURLY;INTERVAL=5;BYDAY=SU,MO")),
        ]
    ),
)
def test_times_grow_and_none_is_left_out_wherever_one_begins(
    after: datetime, zone: str, fields: dict[str, str]
) -> None:
    schedule = Schedule(timezone=zone, **fields)
    first = next_after(schedule, after)
    assert first is not None
    second = next_after(schedule, first)
    assert second is not None
    assert after < first < second
    for between in (after + (first - after) / 2, first - timedelta(microseconds=1)):
        assert next_after(schedule, between) == first
    assert next_after(schedule, first + (second - first) / 2) == second


@given(MOMENTS, ZONES, st.integers(0, 23), st.integers(0, 59))
def test_a_daily_time_comes_once_each_local_day(after: datetime, zone: str, hour: int, minute: int) -> None:
    schedule = Schedule(cron=f"{minute} {hour} * * *", timezone=zone)
    found = list(occurrences(schedule, after, after + timedelta(days=40)))
    days = [at.astimezone(ZoneInfo(zone)).date() for at in found]
    assert len(set(days)) == len(days)
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


NEW_YORK = "America/New_York"


@pytest.mark.parametrize(
    ("rrule", "fields", "found"),
    [
        # 09:00 in New York on both sides of the change of the clocks
        (f"DTSTART;TZID={NEW_YORK}:20260101T090000\nRRULE:FREQ=DAILY", {"timezone": NEW_YORK},
         ["03-07T14:00", "03-08T13:00", "03-09T13:00"]),
        (f"DTSTART;TZID={NEW_YORK}:20260101T090000\nRRULE:FREQ=DAILY", {}, ["03-07T14:00", "03-08T13:00", "03-09T13:00"]),
        (f'DTSTART;TZID="/{NEW_YORK}":20260101T090000 RRULE:FREQ=DAILY', {}, ["03-07T14:00", "03-08T13:00", "03-09T13:00"]),
        (f"dtstart;tzid={NEW_YORK};value=date-time:20260101T090000\r\nrrule:freq=daily\r\n", {},
         ["03-07T14:00", "03-08T13:00", "03-09T13:00"]),
        (f"RRULE:FREQ=DAILY;\r\n BYHOUR=9;BYMINUTE=0;BYSECOND=0\nDTSTART;TZID={NEW_YORK}:20260101T100000", {},
         ["03-07T14:00", "03-08T13:00", "03-09T13:00"]),
        ("DTSTART;VALUE=DATE:20260306\nRRULE:FREQ=DAILY", {"timezone": BERLIN}, ["03-07T23:00", "03-08T23:00", "03-09T23:00"]),
        ("DTSTART:20260301T090000Z\nRRULE:FREQ=DAILY\nEXDATE:20260308T090000Z,20260309T090000Z", {},
         ["03-07T09:00", "03-10T09:00", "03-11T09:00"]),
        (f"DTSTART:20260301T090000\nRRULE:FREQ=DAILY\nEXDATE;TZID={NEW_YORK}:20260307T030000", {"timezone": BERLIN},
         ["03-08T08:00", "03-09T08:00", "03-10T08:00"]),
        ("FREQ=HOURLY;INTERVAL=6\nEXDATE;VALUE=DATE:20260307", {}, ["03-08T00:00", "03-08T06:00", "03-08T12:00"]),
        ("FREQ=DAILY\nRDATE:20260307T120000,20260308T000000\nRDATE;VALUE=DATE:20260309", {},
         ["03-07T12:00", "03-08T00:00", "03-09T00:00"]),
        ("DTSTART:20260301T090000Z\nRDATE:20260307T090000Z\nRDATE;VALUE=PERIOD:20260309T000000Z/PT1H", {},
         ["03-07T09:00", "03-09T00:00"]),
    ],
)  # fmt: skip
def test_lines_of_rfc_5545_are_read(rrule: str, fields: dict[str, str], found: list[str]) -> None:
    assert times("2026-03-07T00:00Z", 3, rrule=rrule, **fields) == found


@pytest.mark.parametrize(
    ("rrule", "timezone", "message"),
    [
        (f"DTSTART;TZID={NEW_YORK}:20260101T090000\nRRULE:FREQ=DAILY", BERLIN, "are two zones; leave one of them out"),
        (
            "DTSTART;TZID=Mars/Base:20260101T090000\nRRULE:FREQ=DAILY",
            "UTC",
            "'Mars/Base' is not a known IANA time zone",
        ),
        ("DTSTART;FOO=1:20260101T090000\nRRULE:FREQ=DAILY", "UTC", "has 'FOO=1', which is not understood"),
        ("DTSTART;VALUE=TEXT:20260101\nRRULE:FREQ=DAILY", "UTC", "VALUE=TEXT is not known"),
        ("DTSTART:2026-01-01\nRRULE:FREQ=DAILY", "UTC", "'2026-01-01' is not a time of an rrule"),
        ("DTSTART:20260101,20260102\nRRULE:FREQ=DAILY", "UTC", "a rule has one DTSTART"),
        ("DTSTART:00010101T000000\nRRULE:FREQ=DAILY", "UTC", "one lies in the years 1900 to 2199"),
        ("FREQ=DAILY\nEXRULE:FREQ=WEEKLY", "UTC", "EXRULE is not supported"),
        ("RRULE:FREQ=DAILY\nRRULE:FREQ=WEEKLY", "UTC", "more than one rule"),
        ("EXDATE:20260101", "UTC", "has no FREQ"),
        ("FREQ=DAILY;BYEASTER=0", "UTC", "not of RFC 5545"),
        ("DTSTART:20260101\nRRULE:FREQ=DAILY;COUNT=2\nEXDATE:20260101,20260102", "UTC", "never comes"),
        ("DTSTART:20260101\nRRULE:FREQ=DAILY;COUNT=1000000000", "UTC", "not a number from 1 to 10000"),
    ],
)
def test_a_line_that_can_not_be_meant_is_refused_with_the_remedy(rrule: str, timezone: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule(rrule=rrule, timezone=timezone)


EVERY_MINUTE = ",".join(map(str, range(60)))


@pytest.mark.parametrize(
    "rrule",
    [
        "FREQ=DAILY;BYYEARDAY=1;BYMONTH=2",
        "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
        "FREQ=MONTHLY;BYDAY=5MO;BYMONTHDAY=1",
        "FREQ=YEARLY;INTERVAL=1000;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=WEEKLY;BYMONTH=2;BYYEARDAY=366",
        f"FREQ=DAILY;BYHOUR={','.join(map(str, range(24)))};BYMINUTE={EVERY_MINUTE};BYSECOND={EVERY_MINUTE}",
        "FREQ=MINUTELY;BYSECOND=0,30",
        f"FREQ=MONTHLY;BYDAY=MO,TU,WE;BYSETPOS={','.join(map(str, range(1, 367)))}",
    ],
)
def test_a_rule_that_would_be_searched_for_ever_or_lists_everything_is_refused_soon(rrule: str) -> None:
    begun = process_time()
    with pytest.raises(ValidationError):
        Schedule(rrule=rrule)
    assert process_time() - begun < 5  # dateutil alone would look for it until the year 9999


RULES = st.sampled_from(
    [
        "FREQ=YEARLY",
        "FREQ=YEARLY;INTERVAL=3;BYDAY=20MO",
        "FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO",
        "FREQ=YEARLY;BYYEARDAY=1,100,-1;BYHOUR=6",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=MONTHLY",
        "FREQ=MONTHLY;INTERVAL=5",
        "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18,20",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
        "FREQ=MONTHLY;BYMONTHDAY=-1;INTERVAL=2",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU",
        "FREQ=DAILY;INTERVAL=11;BYHOUR=3,4",
    ]
)


@up_to(300)
@given(RULES, st.datetimes(datetime(1950, 1, 1), datetime(2020, 1, 1)), MOMENTS)
def test_a_rule_that_begins_close_by_gives_what_it_gives_from_its_start(
    rule: str, start: datetime, after: datetime
) -> None:
    start = start.replace(microsecond=0)
    schedule = Schedule(rrule=rule, anchor=start.replace(tzinfo=UTC))
    expected = rrulestr(rule, dtstart=start).after(after.replace(tzinfo=None))
    assert next_after(schedule, after) == expected.replace(tzinfo=UTC)
