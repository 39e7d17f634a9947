"""What is done about an environment, as a table and as laws."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.kinds.environment import PLAIN, EnvironmentStatus
from minik8s.faas.environments.decide import RETRY, Build, decide, last_lines

H, NOW = "0123456789abcdef", 1000.0
NEW = EnvironmentStatus()
ALL = ("n1", "n2", "n3")


def build(node: str = "", state: str = "Running", **more: object) -> Build:
    return Build(f"build-{node or 'first'}", H, node, state, **more)  # type: ignore[arg-type]


def built(*nodes: str) -> EnvironmentStatus:
    return EnvironmentStatus(hash=H, nodes=nodes, installed=("a==1",))


def test_nothing_is_built_of_nothing() -> None:
    verdict = decide(PLAIN, NEW, (), (), (), ALL, NOW)
    assert (verdict.status, verdict.reason, verdict.build) == ("True", "Built", ())


def test_the_first_build_goes_anywhere() -> None:
    verdict = decide(H, NEW, (), ("n1",), (), ALL, NOW)
    assert (verdict.status, verdict.reason, verdict.build) == ("False", "Building", ("",))
    assert decide(H, NEW, [build()], ("n1", "n2"), (), ALL, NOW).build == ()


def test_an_end_is_written_down_and_its_job_taken_away() -> None:
    verdict = decide(H, NEW, [build(state="Complete", ran_on="n2", said="a==1\nb==2")], (), (), ALL, NOW)
    assert verdict.nodes == ("n2",)
    assert verdict.installed == ("a==1", "b==2")
    assert (verdict.status, verdict.remove) == ("True", ("build-first",))


def test_pods_that_need_it_have_it_built_on_their_nodes() -> None:
    assert decide(H, built("n1"), (), ("n1", "n2", "n3"), (), ALL, NOW).build == ("n2", "n3")
    assert decide(H, built("n1"), [build("n2")], ("n2", "n3"), (), ALL, NOW).build == ("n3",)
    assert decide(H, built("n1"), (), ("n9",), (), ALL, NOW).build == ()  # a node that is gone


def test_a_failure_is_told_and_tried_again_later() -> None:
    failed = build(state="Failed", said="ERROR: no such package\n", ended=NOW - 1)
    verdict = decide(H, NEW, [failed], (), (), ALL, NOW)
    assert (verdict.status, verdict.reason, verdict.message) == ("False", "BuildFailed", "ERROR: no such package")
    assert (verdict.build, verdict.remove, verdict.again) == ((), (), RETRY - 1)
    later = decide(H, NEW, [failed], (), (), ALL, NOW + RETRY)
    assert later.remove == ("build-first",)
    assert later.reason == "BuildFailed"  # until there is another


def test_a_failure_elsewhere_takes_nothing_back() -> None:
    failed = build("n2", "Failed", said="disk full", ended=NOW)
    verdict = decide(H, built("n1"), [failed], ("n1", "n2"), (), ALL, NOW)
    assert (verdict.status, verdict.nodes, verdict.build, verdict.failures) == ("True", ("n1",), (), (failed,))


def test_where_pods_wait_in_vain_it_is_built_anew() -> None:
    verdict = decide(H, built("n1", "n2"), (), ("n1", "n2"), ("n2",), ALL, NOW)
    assert (verdict.nodes, verdict.build) == (("n1",), ("n2",))


def test_a_change_begins_anew() -> None:
    old = Build("old", "f" * 16, "n1", "Running")
    verdict = decide(H, EnvironmentStatus(hash="f" * 16, nodes=("n1",), installed=("z==9",)), [old], (), (), ALL, NOW)
    assert (verdict.nodes, verdict.installed, verdict.build, verdict.remove) == ((), (), ("",), ("old",))


STATES = st.builds(
    build, st.sampled_from(("", *ALL)), st.sampled_from(("Running", "Complete", "Failed")),
    ran_on=st.sampled_from(ALL), ended=st.floats(0, NOW),
)  # fmt: skip


@given(st.lists(STATES, max_size=4, unique_by=lambda one: one.node), st.sets(st.sampled_from(ALL)),
       st.sets(st.sampled_from(ALL)))  # fmt: skip
def test_what_is_done_is_not_done_twice(builds: list[Build], before: set[str], needed: set[str]) -> None:
    first = decide(H, built(*sorted(before)), builds, needed, (), ALL, NOW)
    kept = [one for one in builds if one.name not in first.remove] + [build(node) for node in first.build]
    status = EnvironmentStatus(hash=H, nodes=first.nodes, installed=first.installed)
    second = decide(H, status, kept, needed, (), ALL, NOW)
    assert not set(second.build) & set(first.build)
    assert second.nodes == first.nodes


def test_the_end_of_pips_output() -> None:
    said = "Collecting x\n" * 30 + "ERROR: no\n\n[notice] a new release of pip\n"
    assert last_lines(said).endswith("Collecting x\nERROR: no")
    assert len(last_lines(said).splitlines()) == 12
    retried = "".join(f"WARNING: Retrying ({left})\n" for left in (2, 1, 0)) + "ERROR: none\n"
    assert last_lines(retried) == "WARNING: Retrying (0)\nERROR: none"
