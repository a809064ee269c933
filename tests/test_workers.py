"""Jobs in processes of their own: whatever becomes of one, the others are done."""

import os
import time
from contextlib import closing, suppress

import jobs
import pytest

from encodercheck.verify.workers import Ended, events


def done(*todo, at_once=2):
    """Return what each job sent, and how it ended."""
    heard = [[] for _ in todo]
    for number, event in events(jobs.work, todo, at_once=at_once):
        heard[number].append(event)
    assert all(isinstance(each[-1], Ended) for each in heard)
    return [(each[1:-1], each[-1].reason) for each in heard]


def test_all_that_is_sent_arrives_in_order():
    assert done(("count", 3), ("count", 0), ("count", 2000)) == [
        ([0, 1, 2], ""),
        ([], ""),
        (list(range(2000)), ""),
    ]
    assert done() == []


@pytest.mark.parametrize(
    ("job", "sent", "reason"),
    [
        (("leave", 0), ["last words"], "ended with exit code 0"),
        (("leave", 7), ["last words"], "ended with exit code 7"),
        (("kill",), [], "was killed by SIGKILL"),
        (("crash",), [], "ended with exit code 1: RuntimeError: out of luck"),
        (("interrupt",), ["still here"], ""),
    ],
    ids=str,
)
def test_what_ends_one_job_is_said_and_does_not_reach_the_next(job, sent, reason):
    assert done(job, ("count", 1)) == [(sent, reason), ([0], "")]


def test_a_job_that_cannot_be_read_is_lost_alone(capfd):
    found = [event for _, event in events(jobs.work, [jobs.Unreadable(), ("count", 0)], at_once=1)]
    assert found[0] == Ended("ended with exit code 1")
    assert found[-1] == Ended()
    assert "ValueError" in capfd.readouterr().err


def test_a_process_left_behind_holds_nothing_up():
    started = time.monotonic()
    assert done(("beget",)) == [(["left one"], "")]
    assert time.monotonic() - started < 15


def test_no_more_run_at_once_than_asked_for():
    alive, most = set(), 0
    for number, event in events(jobs.work, [("count", 1)] * 4, at_once=2):
        alive = alive - {number} if isinstance(event, Ended) else alive | {number}
        most = max(most, len(alive))
    assert most <= 2


def test_whoever_stops_listening_ends_the_processes():
    pids = {}
    with closing(events(jobs.work, [("chatter",), ("chatter",)], at_once=2)) as heard:
        for number, event in heard:
            if isinstance(event, tuple):
                pids[number] = event[1]
            if len(pids) == 2:
                break
    for pid in pids.values():
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            pytest.fail("still running")


def lasting(*todo, at_once=1):
    """Return what each job sent, its process first, and how it ended."""
    heard = [[] for _ in todo]
    for number, event in events(jobs.work, iter(todo), at_once=at_once, lasting=True):
        heard[number].append(event)
    return [(each[0][1], each[1:-1], each[-1].reason) for each in heard]


def test_a_lasting_process_does_one_job_after_the_other():
    found = lasting(("count", 2), ("count", 0), ("count", 1))
    assert len({pid for pid, *_ in found}) == 1
    assert [rest for _, *rest in found] == [[[0, 1], ""], [[], ""], [[0], ""]]


@pytest.mark.parametrize("job", [("kill",), ("leave", 7), ("crash",)], ids=str)
def test_a_lasting_process_that_ends_is_followed_by_another(job):
    (before, _, fine), (lost, _, reason), (after, sent, _) = lasting(
        ("count", 1), job, ("count", 1)
    )
    assert fine == "" and reason and sent == [0]
    assert before == lost != after


def test_what_an_earlier_job_printed_is_no_reason():
    (_, _, reason) = lasting(("say", "loud"), ("kill",))[1]
    assert reason == "was killed by SIGKILL"


def test_where_there_is_no_job_yet_the_process_waits():
    todo = iter([("count", 1), None, None, ("count", 2)])
    found = [event for _, event in events(jobs.work, todo, at_once=1, lasting=True)]
    pids = {event[1] for event in found if isinstance(event, tuple)}
    assert [event for event in found if event in (0, 1)] == [0, 0, 1]
    assert len(pids) == 1


def test_jobs_are_taken_when_there_is_a_process_for_them():
    taken = []

    def todo():
        for number in range(6):
            taken.append(number)
            yield "count", 1

    ended = 0
    for _, event in events(jobs.work, todo(), at_once=2, lasting=True):
        assert len(taken) <= ended + 2
        ended += isinstance(event, Ended)
    assert ended == 6
