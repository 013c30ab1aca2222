"""The bench on which trials are judged: reduced blocks and oracle of every basis of a study, and no configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from store import provenance
from suite.judge.oracle import Oracle
from suite.judge.theory import TERMS, limiting_term
from suite.model.regression import Block, by_observable, fit
from suite.observables import RATIOS
from suite.results import Rows, World
from suite.spec import Spec
from suite.stages.judge import build_oracle
from suite.stages.rows import blocks_of
from suite.study import archive
from suite.study.cache import cached, cached_rows, cached_world, stage_key
from suite.study.session import Session, Stages
from suite.study.space import bases_of, basis_key

ORACLE_VERSION = 6
STUDY_VERSION = 3  # version 3: the journal holds the numbers of the corrected bound


class Ground(NamedTuple):
    """World and rows of one basis: what a full relaxation needs."""

    world: World
    rows: Rows


@dataclass(frozen=True)
class Bench:
    """Reduced blocks and oracle of every basis of a study, by `basis_key`. `joint` are the blocks merged by observable,
    for trials that do not change the factors of amplitudes."""

    spec: Spec
    blocks: dict[str, dict[str, Block]]
    oracles: dict[str, Oracle]
    joint: dict[str, dict[str, Block]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "joint", {key: by_observable(self.spec, each) for key, each in self.blocks.items()})

    def candidate(self, values: Mapping[str, Any]) -> Spec:
        """The spec with the parameters of a trial."""
        weights: dict[str, Any] = {name: values[name] * self.spec.weights.force for name in RATIOS if name in values}
        factors = {name.partition("@")[2]: value for name, value in values.items() if name.startswith("amplitude@")}
        if factors:
            weights["amplitudes"] = {**self.spec.weights.amplitudes, **factors}
        solver = {name: values[name] for name in ("alpha", "threshold") if name in values}
        model = {"channels": tuple(map(int, values["channels"].split()))} if "channels" in values else {}
        return self.spec.model_copy(
            update={
                "weights": self.spec.weights.model_copy(update=weights),
                "solver": self.spec.solver.model_copy(update=solver),
                "model": self.spec.model.model_copy(update=model),
            }
        )

    def judge(self, candidate: Spec) -> dict[str, float]:
        """Fit, and return every number of the oracle. Raises `regression.Unsolvable`."""
        key = basis_key(candidate)
        own = candidate.weights.amplitudes == self.spec.weights.amplitudes
        joint = self.joint[key] if own else by_observable(candidate, self.blocks[key])
        solution = fit(candidate, joint)
        numbers = self.oracles[key].evaluate(solution.coefficients)
        numbers["limiting"] = float(list(TERMS).index(limiting_term(numbers)))
        return numbers


def prepare(spec: Spec, session: Session, stages: Stages) -> tuple[Bench, dict[str, Ground]]:
    """The bench of a study, and world and rows of each of its bases. What the cache holds is not computed again."""
    grounds, blocks, oracles = {}, {}, {}
    for each in bases_of(spec):
        key = basis_key(each)
        world = cached_world(each, session, stages)
        rows = cached_rows(each, world, session, stages)
        with stages.stage("oracle"):
            oracles[key] = cached_oracle(each, world, rows, session)
        grounds[key], blocks[key] = Ground(world, rows), blocks_of(each, rows)
    return Bench(spec, blocks, oracles), grounds


def oracle_key(spec: Spec) -> str:
    """Content key of an oracle: rows and the equilibrium of the simulation cell."""
    return provenance.content_key("oracle", ORACLE_VERSION, stage_key(spec, "simulation"), stage_key(spec, "rows"))


def cached_oracle(spec: Spec, world: World, rows: Rows, session: Session) -> Oracle:
    """The oracle of a world and rows, from the cache if it is there."""
    oracle, _ = cached(
        session.workspace / "cache" / f"oracle-{oracle_key(spec)}.zarr",
        archive.oracle_from,
        lambda: build_oracle(spec, world, rows, session.progress, session.workers),
        archive.oracle_groups,
        session.progress,
    )
    return oracle


def study_key(spec: Spec) -> str:
    """Content key of a study: what its trials depend on. The number of trials is not in the key, so that a study can
    be extended."""
    settings = spec.tune.model_dump(exclude={"trials", "verify"})
    own = spec.table("weights", "solver", "observables")
    judges = [oracle_key(each) for each in bases_of(spec)]
    return provenance.content_key("study", STUDY_VERSION, settings, own, judges)
