"""Laws of who gets which device, and tables for the order of choice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.api.kinds.pod import Container, PodSpec
from minik8s.kubelet.devices.allocator import (
    Device,
    Holding,
    Ledger,
    NotEnough,
    available,
    choose,
    natural,
    secured,
)

FOO = "vendor.example/foo"


def devices(*numa: tuple[int, ...]) -> dict[str, Device]:
    return {f"d{at}": Device(f"d{at}", True, nodes) for at, nodes in enumerate(numa)}


def take(ledger: Ledger, known: dict[str, Device], uid: str, spec: PodSpec, container: str, count: int) -> bool:
    sure = secured(count, ledger.reusable(uid, spec, container, FOO), known)
    try:
        ids = choose(count, sure, available(known, ledger.taken(FOO)), (), known)
    except NotEnough:
        return False
    ledger.put(Holding(uid, "default", uid, container, FOO, ids))
    return True


STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "go", "ill", "well"]), st.integers(0, 199), st.integers(1, 4), st.booleans()),
    max_size=200,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.lists(st.sampled_from([(), (0,), (1,), (0, 1)]), min_size=8, max_size=8))
def test_no_device_is_given_twice(steps: list[tuple[str, int, int, bool]], numa: list[tuple[int, ...]]) -> None:
    """200 pods come and go on 8 devices that fall ill and recover."""
    known, ledger = devices(*numa), Ledger()
    for step, number, count, has_init in steps:
        uid = f"pod{number}"
        if step == "come" and uid not in ledger.pods():
            init = (Container(name="init"),) if has_init else ()
            spec = PodSpec(initContainers=init, containers=(Container(name="a"), Container(name="b")))
            free = len(available(known, ledger.taken(FOO)))
            wanted = ([("init", count)] if has_init else []) + [("a", count), ("b", 1)]
            given = [take(ledger, known, uid, spec, name, number) for name, number in wanted]
            # What the scheduler counts for the pod is enough for it: its init container's devices pass on.
            assert all(given) == (free >= count + 1)
            if not all(given):
                ledger.free(uid)
        elif step == "go":
            ledger.free(uid)
        elif step in ("ill", "well"):
            name = f"d{number % 8}"
            known[name] = known[name]._replace(healthy=step == "well")
        apps = [i for h in ledger.all() if h.container != "init" for i in h.ids]
        assert len(apps) == len(set(apps)), "two app containers have one device"
        owners = {(i, h.uid) for h in ledger.all() for i in h.ids}
        assert len(owners) == len({name for name, _ in owners}), "two pods have one device"


@given(st.integers(0, 8), st.sets(st.integers(0, 7)), st.lists(st.integers(0, 9), max_size=12))
def test_what_is_chosen_is_sure_or_free(count: int, sure: set[int], preferred: list[int]) -> None:
    known = devices(*[(at % 2,) for at in range(8)])
    firm = [f"d{at}" for at in sorted(sure)][:count]
    free = [name for name in known if name not in firm]
    ids = choose(count, firm, free, [f"d{at}" for at in preferred], known)
    assert len(set(ids)) == len(ids) == count
    assert set(firm) <= set(ids) <= set(firm) | set(free)


def test_order_of_choice() -> None:
    known = devices((0,), (1,), (0,), (1,), (1,))
    free = list(known)
    assert choose(2, (), free, ["d4"], known) == ("d4", "d1"), "what is preferred, and what is near to it"
    assert choose(2, (), free, (), known) == ("d0", "d2"), "the NUMA node that fits best"
    assert choose(3, (), free, (), known) == ("d1", "d3", "d4"), "the one that has enough"
    assert choose(2, ("d1",), free[:1] + free[2:], (), known) == ("d1", "d3"), "near to what it has"
    assert choose(4, (), free, (), known) == ("d1", "d3", "d4", "d0"), "no node is enough: the fullest first"
    assert choose(1, (), ["d0"], ["gone"], known) == ("d0",), "a preference for what is not free is none"
    with pytest.raises(NotEnough, match="Requested: 6, Available: 5"):
        choose(6, (), free, (), known)


def test_sidecars_keep_what_they_have() -> None:
    sidecar = Container(name="side", restartPolicy="Always")
    spec = PodSpec(
        initContainers=(Container(name="i1"), sidecar, Container(name="i2")), containers=(Container(name="a"),)
    )
    ledger = Ledger()
    for name, ids in (("i1", ("d0", "d1")), ("side", ("d0",)), ("i2", ("d1",))):
        ledger.put(Holding("u", "default", "p", name, FOO, ids))
    assert ledger.reusable("u", spec, "side", FOO) == {"d1"}, "but not from itself"
    assert ledger.reusable("u", spec, "a", FOO) == {"d1"}


def test_numbers_sort_as_numbers() -> None:
    assert sorted(["gpu-10", "gpu-2", "gpu-1", "7", "a"], key=natural) == ["7", "a", "gpu-1", "gpu-2", "gpu-10"]
