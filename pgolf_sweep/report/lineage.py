"""The tree of what was tried on what: configurations of programs and knobs, with their effects.

A configuration is a program with knobs, all but the seed; its trials are its repeats. One that
somebody proposed as a change of a trial hangs below that trial's configuration. Those that the
sampler drew stand in the tree only where something was built on them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.report.compare import compared, configuration
from pgolf_sweep.report.text import SHORT
from pgolf_sweep.space.space import is_seed
from pgolf_sweep.submission.effects import Accept

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.submission.effects import Effect
    from pgolf_sweep.variants.store import Variant

OWN = "the study's program"


@dataclass(slots=True, kw_only=True)
class Node:
    """One configuration of the tree.

    Attributes:
        number: Its first trial.
        trials: All its trials, duplicates left out.
        parent: Number of the node that it changes, or None.
        merged: Id of the second variant of a merge; else empty.
        variant: Id of its program; empty for the study's own.
        idea: The one line of its first trial.
        proposer: Who proposed that.
        outcome: Of its trials the best: completed before running before all others.
        reason: Why it did not complete; empty otherwise.
        val_bpb: Mean of the completed trials' scores; None without one.
        seeds: How many scores that is.
        changed: Knobs that differ from the parent's, as ``NAME=VALUE``.
        effect: Against the parent; None where it cannot be told.
        children: Nodes that change it, oldest first.
    """

    number: int
    trials: tuple[int, ...]
    parent: int | None
    merged: str
    variant: str
    idea: str
    proposer: str
    outcome: State
    reason: str
    val_bpb: float | None
    seeds: int
    changed: tuple[str, ...] = ()
    effect: Effect | None = None
    children: list[Node] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The node without its children; keys stay stable."""
        effect = self.effect
        return {
            "number": self.number,
            "trials": list(self.trials),
            "parent": self.parent,
            "merged": self.merged,
            "variant": self.variant,
            "idea": self.idea,
            "proposer": self.proposer,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "val_bpb": self.val_bpb,
            "seeds": self.seeds,
            "changed_knobs": list(self.changed),
            "effect": None
            if effect is None
            else {
                "difference_bpb": effect.value,
                "low": effect.low,
                "high": effect.high,
                "p_value": effect.p_value,
            },
            "children": [child.number for child in self.children],
        }

    @property
    def text(self) -> str:
        """The node in one line for people."""
        program = f"program {self.variant[:SHORT]}" if self.variant else OWN
        parts = [f"trial {self.number}", program]
        parts += [", ".join(self.changed)] * bool(self.changed)
        if self.val_bpb is None:
            parts.append(f"{self.outcome.value}{f': {self.reason}' if self.reason else ''}")
        else:
            seeds = f" over {self.seeds} seeds" if self.seeds > 1 else ""
            parts.append(f"{self.val_bpb:.4f}{seeds}")
        parts += [effect_text(self.effect)] * (self.effect is not None)
        parts += [f'"{self.idea}"'] * bool(self.idea)
        return "  ".join([*parts, f"by {self.proposer.removeprefix('propose:')}"])


def effect_text(effect: Effect | None) -> str:
    """``-0.0031 (-0.0040 to -0.0022)`` bpb against the parent."""
    if effect is None:
        return ""
    return f"{effect.value:+.4f} ({effect.low:+.4f} to {effect.high:+.4f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The configurations of a study that hang together.

    Attributes:
        study: Its name.
        nodes: By the number of their first trial, oldest first.
        untried: Programs that are kept and that no trial ran yet, by id.
        metric: The sweep's own metric; empty for the contest's score.
    """

    study: str
    nodes: Mapping[int, Node]
    untried: Mapping[str, Variant]
    metric: str = ""

    @property
    def roots(self) -> list[Node]:
        """Nodes that change no other."""
        return [node for node in self.nodes.values() if node.parent is None]

    def node_of(self, trial: int) -> Node | None:
        """The node of a trial; None where it stands in none."""
        return next((node for node in self.nodes.values() if trial in node.trials), None)

    def walk(self) -> Iterator[tuple[int, Node]]:
        """Each node with its depth, parents before their children."""
        waiting = [(0, node) for node in reversed(self.roots)]
        while waiting:
            depth, node = waiting.pop()
            yield depth, node
            waiting += [(depth + 1, child) for child in reversed(node.children)]

    def dot(self) -> str:
        """The tree for Graphviz."""
        lines = ["digraph lineage {", "  node [shape=box, fontname=monospace];"]
        for node in self.nodes.values():
            label = node.text.replace("\\", "\\\\").replace('"', "'").replace("  ", "\\n")
            lines.append(f'  t{node.number} [label="{label}"];')
            if node.parent is not None:
                lines.append(f"  t{node.parent} -> t{node.number};")
        return "\n".join([*lines, "}"]) + "\n"


def lineage(
    study: str,
    records: Sequence[TrialRecord],
    variants: Mapping[str, Variant],
    *,
    also: Collection[int] = (),
) -> Lineage:
    """The tree of a study.

    Args:
        study: Its name.
        records: A row for every trial, by number.
        variants: The programs that it keeps, by id.
        also: Trials that stand in the tree even where nothing was built on them.
    """
    own = [r for r in records if r.duplicate_of is None and r.rung is None]
    groups: dict[str, list[TrialRecord]] = {}
    for record in own:
        groups.setdefault(configuration(record), []).append(record)
    first = {key: group[0].number for key, group in groups.items()}
    key_of = {r.number: configuration(r) for r in records}
    parents = {key: _parent(key, group, key_of) for key, group in groups.items()}
    wanted = {key for key, group in groups.items() if parents[key] or group[0].variant}
    wanted |= {key_of[number] for number in also if number in key_of}
    wanted |= {parent for key in list(wanted) if (parent := parents[key]) is not None}
    nodes: dict[int, Node] = {}
    by_number = {record.number: record for record in records}
    for key, group in groups.items():
        if key not in wanted:
            continue
        above = parents[key]
        node = _node(group, variants, parent=None if above is None else first[above])
        if node.parent is not None:
            node.changed = _changed(group[0], by_number[node.parent])
            node.effect = _effect(study, records, node.parent, node.number)
        nodes[node.number] = node
    for node in nodes.values():
        if node.parent is not None:
            nodes[node.parent].children.append(node)
    ran = {record.variant for record in records}
    untried = {name: one for name, one in variants.items() if name not in ran}
    metric = next((record.metric for record in records if record.metric), "")
    return Lineage(study=study, nodes=nodes, untried=untried, metric=metric)


def _parent(key: str, group: Sequence[TrialRecord], key_of: Mapping[int, str]) -> str | None:
    """The configuration that another one changes; a repeat on another seed changes none.

    Only an older trial counts, so that no circle can come of files that somebody edited.
    """
    for record in group:
        if record.parent is not None and record.parent < record.number:
            above = key_of.get(record.parent)
            if above is not None and above != key:
                return above
        break
    return None


def _node(
    group: Sequence[TrialRecord], variants: Mapping[str, Variant], *, parent: int | None
) -> Node:
    head = group[0]
    scores = [r.val_bpb for r in group if r.outcome is State.COMPLETED and r.val_bpb is not None]
    order = [State.COMPLETED, State.RUNNING, State.QUEUED]
    states = [r.outcome for r in group]
    outcome = next((state for state in order if state in states), head.outcome)
    made = variants.get(head.variant)
    return Node(
        number=head.number,
        trials=tuple(record.number for record in group),
        parent=parent,
        merged="" if made is None else made.merged,
        variant=head.variant,
        idea=head.idea,
        proposer=head.proposer,
        outcome=outcome,
        reason="" if scores else head.reason,
        val_bpb=fmean(scores) if scores else None,
        seeds=len(scores),
    )


def _changed(record: TrialRecord, parent: TrialRecord) -> tuple[str, ...]:
    names = sorted(name for name in {*record.knobs, *parent.knobs} if not is_seed(name))
    return tuple(
        f"{name}={knob_text(record.knobs[name])}" if name in record.knobs else f"no {name}"
        for name in names
        if record.knobs.get(name) != parent.knobs.get(name)
    )


def _effect(study: str, records: Sequence[TrialRecord], parent: int, number: int) -> Effect | None:
    with suppress(AnswerNoError, InputError):
        return compared(study, records, parent, number, accept=Accept()).effect
    return None


# -- what to extend ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Extendable:
    """A configuration that may be worth another change.

    Attributes:
        node: It.
        behind: Its score behind the best one's, in standard deviations of one run.
        tried: How many changes of it were proposed.
        novelty: Share of the lines its program adds that no other kept program adds; 1 for the
            study's own.
        worth: What the list is sorted by; see `extendable`.
    """

    node: Node
    behind: float
    tried: int
    novelty: float
    worth: float


def extendable(
    tree: Lineage,
    records: Sequence[TrialRecord],
    added: Mapping[str, frozenset[str]],
    *,
    std: float,
) -> list[Extendable]:
    """Configurations by what another change of them promises, best first.

    ``worth = -behind + sqrt(2 ln(1 + N) / (1 + tried)) + novelty``, an upper confidence bound (Auer
    et al., Machine Learning 47, 2002) in units of the noise, with `N` the changes tried in all: a
    parent that is a little worse and was never built on comes before the hundredth change of the
    best.

    Args:
        tree: The study's lineage.
        records: Its trials.
        added: Lines that each kept program adds to its parent, by id.
        std: Of one run over seeds.
    """
    good = [n for n in tree.nodes.values() if n.val_bpb is not None and _fits(n, records)]
    if not good:
        return []
    sign = -1.0 if any(record.maximize for record in records) else 1.0
    best = min(sign * (node.val_bpb or 0.0) for node in good)
    total = sum(len(node.children) for node in good)
    found = []
    for node in good:
        behind = (sign * (node.val_bpb or 0.0) - best) / std
        tried = len(node.children)
        novelty = _novelty(node.variant, added)
        bonus = math.sqrt(2 * math.log(1 + total) / (1 + tried))
        found.append(
            Extendable(
                node=node,
                behind=behind,
                tried=tried,
                novelty=novelty,
                worth=-behind + bonus + novelty,
            )
        )
    return sorted(found, key=lambda one: (-one.worth, one.node.number))


def _fits(node: Node, records: Sequence[TrialRecord]) -> bool:
    return any(record.number in node.trials and record.submittable for record in records)


def _novelty(variant: str, added: Mapping[str, frozenset[str]]) -> float:
    own = added.get(variant, frozenset())
    if not own:
        return 1.0
    others: set[str] = set()
    for name, lines in added.items():
        if name != variant:
            others |= lines
    return len(own - others) / len(own)


def near_misses(tree: Lineage, *, std: float, maximize: bool = False) -> list[Node]:
    """Changed programs that are not clearly worse than what they change, best effect first.

    Clearly worse: by more than twice the noise of a comparison on one seed each.
    """
    found = []
    for node in tree.nodes.values():
        above = tree.nodes.get(node.parent) if node.parent is not None else None
        if above is None or not node.variant or node.val_bpb is None or above.val_bpb is None:
            continue
        effect = node.val_bpb - above.val_bpb if node.effect is None else node.effect.value
        effect = -effect if maximize else effect
        if effect <= 2 * math.sqrt(2) * std:
            found.append((effect, node))
    return [node for _, node in sorted(found, key=lambda pair: (pair[0], pair[1].number))]
