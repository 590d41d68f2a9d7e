"""Placements under everything that may happen to a pool, in any order."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.affinity import Affinity
from gateway.core.homes import Home, Homes
from gateway.core.mirror import STEP_BYTES, Mirror
from gateway.core.rendezvous import home_of
from gateway.core.route import Candidate, RoutePolicy, RouteSettings, RouteTicket, Wish
from gateway.core.route_records import RecordKind, RouteRecord, decode, encode
from gateway.core.shared_head import SharedHead
from gateway.core.trail import Trail
from tests.helpers.routed import RATE
from tests.properties.conftest import EXAMPLES, many, seeds

NAMES = [f"b{n}" for n in range(6)]


def prompt(dice: random.Random, kinds: int = 4, most: int = 6) -> Trail:
    """Few different ones, which often begin alike; some are empty."""
    prints: list[int] = []
    ends: list[int] = []
    for _ in range(dice.randint(0, most)):
        before = prints[-1] if prints else 0
        prints.append((before * 31 + dice.randrange(kinds) + 1) * 0x9E3779B97F4A7C15 % 2**64)
        ends.append((ends[-1] if ends else 0) + (len(prints) * 37 % 5) * 100)
    return Trail(tuple(prints), tuple(ends), dice.random() < 0.5)


class World:
    """An affinity, and whatever a conductor may tell it."""

    def __init__(self, dice: random.Random, policy: RoutePolicy, capacity: int = 3000) -> None:
        self.dice = dice
        self.settings = RouteSettings(
            policy=policy,
            cache_tokens=capacity,
            prefill_tokens_per_s=RATE,
            mirror_bytes=6 * 80 * STEP_BYTES,
        )
        self.affinity = Affinity(self.settings)
        self.affinity.shares = dice.random() < 0.5
        self.now = 0.0
        self.open: deque[RouteTicket] = deque()
        self.records: deque[RouteRecord] = deque(maxlen=20)

    def step(self) -> None:
        dice, affinity = self.dice, self.affinity
        self.now += dice.random() * 0.5
        kind = dice.randrange(20)
        if kind < 8:
            self.place()
        elif kind < 15:
            self.tell()
        elif kind == 15:
            affinity.joined(dice.choice(NAMES), cache_tokens=dice.choice((0, 500, 5000)))
        elif kind == 16:
            name = dice.choice(NAMES)
            if dice.random() < 0.3:
                affinity.joined(name, slots=dice.randint(1, 3))
            affinity.emptied(name)
            if name in affinity.told():
                assert affinity.told()[name]["mirror_steps"] == 0
        elif kind == 17:
            name = dice.choice(NAMES)
            affinity.left(name)
            assert name not in affinity.told()
        else:
            self.hear()
        if len(self.open) > 30:
            affinity.over(self.open.popleft(), self.now, failed=dice.random() < 0.5)

    def place(self) -> None:
        dice = self.dice
        some = dice.sample(NAMES, dice.randint(0, len(NAMES)))
        candidates = [
            Candidate(name, dice.choice((1.0, 1.0, 2.0, 0.0)), dice.randrange(3)) for name in some
        ]
        wish = Wish(prompt(dice), dice.choice((0, 0, 1, 2)))
        placement = self.affinity.place(wish, candidates, self.now, dice.random())
        assert sorted(placement.order) == sorted(some)
        assert 0 <= placement.held <= len(wish.trail.prints)
        assert 0 <= placement.head <= len(wish.trail.prints)
        if not some or dice.random() < 0.1:
            return
        backend = placement.order[0] if dice.random() < 0.8 else dice.choice(placement.order)
        ticket = self.affinity.sent(placement, backend, self.now, streamed=dice.random() < 0.8)
        assert 0 <= ticket.expected <= wish.trail.tokens
        assert ticket.expected + ticket.uncached == wish.trail.tokens
        self.open.append(ticket)

    def tell(self) -> None:
        if not self.open:
            return
        dice, affinity = self.dice, self.affinity
        ticket = dice.choice(self.open)
        what = dice.randrange(4)
        if what == 0:
            affinity.begun(ticket, self.now)
        elif what == 1:
            tokens = ticket.placement.wish.trail.tokens
            told = dice.choice((None, 0, tokens, 2 * tokens))
            affinity.learn(ticket, told, dice.choice((None, 0, ticket.expected, tokens, 10**6)))
        else:
            affinity.over(ticket, self.now, failed=what == 3)

    def hear(self) -> None:
        dice = self.dice
        if self.records and dice.random() < 0.5:
            kind = dice.choice((RecordKind.BEGUN, RecordKind.OVER))
            record = dice.choice(self.records)._replace(kind=kind, trail=Trail())
        else:
            record = RouteRecord(
                RecordKind.PLACED,
                dice.randrange(3),
                dice.randrange(1000),
                dice.choice(NAMES),
                self.now,
                prompt(dice),
                dice.choice((0, 1)),
                dice.randrange(1000),
            )
            self.records.append(record)
        self.affinity.heard(record, self.now, dice.choice((0.0, 1.0, 500.0)))

    def check(self) -> None:
        """What is bounded is within its bounds."""
        for each in self.affinity.told(self.now).values():
            assert each["mirror_steps"] <= 80 * 6
            assert each["pending_s"] >= 0.0
            assert each["rate"] >= 0.0
        for replica in self.affinity._fleet:
            mirror = replica.mirror
            if isinstance(mirror, Mirror):
                assert mirror.tokens == sum(held & 0xFFFFFF for held in mirror._steps.values())
                assert mirror.tokens <= max(mirror.capacity, 0) or not mirror.capacity
                assert len(mirror) <= max(64, mirror.most_steps)
            assert len(replica.unbegun) <= 40


@settings(many, max_examples=max(100, EXAMPLES // 10))
@given(seeds, st.sampled_from(list(RoutePolicy)))
def test_whatever_happens_each_placement_is_an_order_of_the_candidates(
    seed: int, policy: RoutePolicy
) -> None:
    world = World(random.Random(seed), policy)
    for _ in range(60):
        world.step()
    world.check()


@many
@given(seeds)
def test_a_mirror_holds_with_each_step_all_that_leads_to_it(seed: int) -> None:
    dice = random.Random(seed)
    mirror = Mirror(dice.choice((0, 700, 2000)), dice.choice((5, 20, 1000)))
    parents: dict[int, int] = {}
    stamps: list[tuple[Trail, int, int]] = []
    for stamp in range(1, 30):
        trail = prompt(dice)
        parents.update(zip(trail.prints, (0, *trail.prints), strict=False))
        depth = mirror.look(trail.prints, dice.randrange(8))
        assert depth == next(
            (i for i, each in enumerate(trail.prints) if each not in mirror), len(trail.prints)
        )
        match dice.randrange(6):
            case 0:
                mirror.forget_until(stamp - dice.randrange(1, 6))
            case 1 if stamps:
                old, held, when = stamps[dice.randrange(len(stamps))]
                mirror.undo(old.prints, held, when)
            case _:
                mirror.touch(trail, depth, stamp)
                stamps.append((trail, depth, stamp))
        for step in mirror._steps:
            assert not parents[step] or parents[step] in mirror
        assert len(mirror) <= mirror.most_steps
        assert not mirror.capacity or mirror.tokens <= mirror.capacity


@many
@given(seeds)
def test_who_comes_or_goes_takes_or_leaves_its_own_homes_only(seed: int) -> None:
    dice = random.Random(seed)
    candidates = [
        Candidate(f"r{dice.getrandbits(20)}-{n}", dice.choice((0.5, 1.0, 3.0)))
        for n in range(dice.randint(2, 9))
    ]
    gone = dice.choice(candidates)
    rest = [each for each in candidates if each is not gone]
    for _ in range(5):
        key = dice.getrandbits(64)
        before = candidates[home_of(key, candidates)]
        after = rest[home_of(key, rest)]
        assert before is gone or before is after
        dice.shuffle(rest)
        assert rest[home_of(key, rest)] is after


def test_homes_are_shared_out_by_weight() -> None:
    dice = random.Random(5)
    candidates = [
        Candidate("a", 1.0),
        Candidate("b", 2.0),
        Candidate("c", 0.0),
        Candidate("d", 5.0),
    ]
    won = [0, 0, 0, 0]
    for _ in range(16_000):
        won[home_of(dice.getrandbits(64), candidates)] += 1
    assert won[2] == 0
    for index, share in ((0, 1 / 8), (1, 2 / 8), (3, 5 / 8)):
        assert abs(won[index] / 16_000 - share) < 0.02


@many
@given(seeds)
def test_gateways_that_share_nothing_agree_where_nothing_is_overloaded(seed: int) -> None:
    dice = random.Random(seed)
    wish = Wish(
        Trail((dice.getrandbits(64), 7), (100, 300)), dice.choice((0, dice.getrandbits(60)))
    )
    candidates = [Candidate(name) for name in NAMES]
    chosen = set()
    for _ in range(2):
        affinity = Affinity(RouteSettings(prefill_tokens_per_s=RATE))
        dice.shuffle(candidates)
        for n in range(dice.randrange(4)):  # what each did before is its own
            other = affinity.place(Wish(Trail((n + 1,), (50,))), candidates, 0.0, dice.random())
            affinity.sent(other, other.order[0], 0.0)
        chosen.add(affinity.place(wish, candidates, 0.0, dice.random()).order[0])
    assert len(chosen) == 1


@many
@given(seeds)
def test_a_record_is_read_as_it_was_written_and_damage_is_no_error(seed: int) -> None:
    dice = random.Random(seed)
    trail = prompt(dice)
    record = RouteRecord(
        dice.choice(list(RecordKind)),
        dice.getrandbits(64),
        dice.getrandbits(64),
        dice.choice(("", "10.0.0.1:8000", "répliqué")),
        dice.random() * 1e9,
        trail,
        dice.getrandbits(64),
        dice.randint(0, trail.tokens),
    )
    told = encode(record)
    assert decode(told) == record
    cut = dice.randrange(len(told))
    assert decode(told[:cut]) is None
    damaged = bytearray(told)
    damaged[cut] ^= 1 << dice.randrange(8)
    decode(bytes(damaged))
    decode(dice.randbytes(dice.randrange(100)))


@many
@given(seeds)
def test_what_is_shared_is_counted_exactly_over_the_recent_conversations(seed: int) -> None:
    dice = random.Random(seed)
    shared = SharedHead(most_conversations=7, most_steps=25)
    noted: list[Trail] = []
    for _ in range(40):
        trail = prompt(dice)
        shared.note(trail)
        if trail.prints:
            noted.append(trail)
        recent = noted[-len(shared._recent) :] if shared._recent else []
        expected: dict[int, int] = {}
        for each in recent:
            for step in each.prints:
                expected[step] = expected.get(step, 0) + 1
        assert shared._counts == expected
        assert len(shared._recent) <= 7
        assert shared._steps <= 25


def test_homes_forget_who_was_not_heard_of_for_longest() -> None:
    homes: Homes[str] = Homes(most_tips=10, most_sessions=5)
    for n in range(1, 100):
        homes.settle(Trail((n,), (1,)), n, 0, Home("r"))
        assert len(homes) <= 15
    assert homes.named(99) is not None
    assert homes.named(1) is None


@pytest.mark.slow
def test_a_million_operations_leave_no_more_behind_than_the_first_tenth() -> None:
    dice = random.Random(11)
    world = World(dice, RoutePolicy.PREFIX)

    def kept() -> int:
        affinity = world.affinity
        return (
            sum(len(each.mirror) + len(each.backlog) for each in affinity._fleet)
            + len(affinity._homes)
            + len(affinity._shared)
            + len(affinity._elsewhere)
        )

    affinity = world.affinity
    affinity._homes = Homes(most_tips=500, most_sessions=100)
    candidates = [Candidate(name) for name in NAMES]
    most = 0
    # Each round is five operations and a new prompt.
    for number in range(200_000):
        world.now += 0.01
        trail = Trail((number * 3 + 1, number * 3 + 2), (100, 200))
        placement = affinity.place(Wish(trail), candidates, world.now, dice.random())
        ticket = affinity.sent(placement, placement.order[0], world.now)
        affinity.begun(ticket, world.now)
        affinity.learn(ticket, 200, 0)
        affinity.over(ticket, world.now)
        if number == 20_000:
            most = kept()
    assert kept() <= 1.1 * most
    world.check()
