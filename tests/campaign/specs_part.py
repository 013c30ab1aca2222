"""Mutated specs: `load`, `load_sweeps` and `check` agree, in a sentence with a place; what `check` accepts, `plan` and
`run` do not refuse."""

from __future__ import annotations

import contextlib
import io
import random
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import judging
from mutants import Mutant, Raw, make, value_of
from processes import Case, Finding, dislobench, scratch_folder

CHUNK = 100  # mutants of one process
ALARM = 5.0  # seconds that a spec may take


class Hang(BaseException):
    """The alarm; no `except Exception` catches it."""


@dataclass(frozen=True)
class Loaders:
    """What is on trial; the campaign's own check puts broken ones here."""

    load: Callable[..., Any]
    load_sweeps: Callable[..., Any]
    main: Callable[[list[str]], int]


def real() -> Loaders:
    from suite.cli import main
    from suite.spec import load, load_sweeps

    return Loaders(load, load_sweeps, main)


@dataclass(frozen=True)
class Outcome:
    """What loading did: good, or refused with `problems`, or a defect with its `trace`."""

    good: bool
    problems: tuple[str, ...] = ()
    trace: str = ""


def _try(act: Callable[[], Any]) -> Outcome:
    from store.faults import Fault

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, ALARM, 1.0)
    try:
        act()
        return Outcome(True)
    except Fault as fault:
        return Outcome(False, tuple(getattr(fault, "problems", [str(fault)])))
    except Hang:
        return Outcome(False, trace=f"Hang: more than {ALARM:g} s")
    except Exception:
        return Outcome(False, trace=traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _without_place(problem: str, path: Path, mutant: Mutant) -> bool:
    """Whether a problem names neither the file nor, when there are some, --set or --preset."""
    places = [str(path), path.name, repr(path.name)[1:-1], str(path)[:60]]
    places += ["--set"] if mutant.overrides else []
    places += ["preset"] if mutant.preset is not None else []
    return not problem.strip() or not any(place in problem for place in places)


def judge_mutant(mutant: Mutant, path: Path, loaders: Loaders) -> str:
    """What is wrong with what dislobench makes of a mutant, or ""."""
    words = (str(path), mutant.preset, list(mutant.overrides))
    spec, sweeps = _try(lambda: loaders.load(*words)), _try(lambda: loaders.load_sweeps(*words))
    for name, outcome in (("load", spec), ("load_sweeps", sweeps)):
        if outcome.trace:
            return f"{name}: {judging.cause_of(outcome.trace)}"
        if not outcome.good and (
            not outcome.problems or any(_without_place(p, path, mutant) for p in outcome.problems)
        ):
            return f"{name}: a message without a place: {' / '.join(outcome.problems)[:200]!r}"
    if spec.good and mutant.surely_bad:
        return "load: accepted, though it cannot be right"
    if spec.good and not mutant.has_preset:
        return "load: accepted with a preset that the file does not have"
    out, err, code = io.StringIO(), io.StringIO(), -1
    arguments = ["check", "--json"] + ([f"--preset={mutant.preset}"] if mutant.preset is not None else [])
    arguments += [f"--set={word}" for word in mutant.overrides] + ["--", str(path)]

    def check() -> None:
        nonlocal code
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = loaders.main(arguments)

    checked = _try(check)
    if checked.trace:
        return f"check: {judging.cause_of(checked.trace)}"
    if code not in (0, 2):
        return f"check: exit {code}: {err.getvalue()[:200]!r}"
    if code == 2 and _without_place(err.getvalue(), path, mutant):
        return f"check: a message without a place: {err.getvalue()[:200]!r}"
    if code == 0 and not spec.good:
        return f"check says good, load refuses: {spec.problems[0][:200]}"
    if code == 0 and not sweeps.good and "it has no [sweep" not in sweeps.problems[0]:
        return f"check says good, load_sweeps refuses: {sweeps.problems[0][:200]}"
    if err.getvalue() and code == 0:
        return f"check: words on stderr though it says good: {err.getvalue()[:200]!r}"
    return ""


def _shortest(mutant: Mutant, wrong: str, folder: Path, loaders: Loaders) -> Mutant:
    """The shortest mutant that is wrong in the same way."""
    signature = judging.signature_of(wrong)
    for shorter in mutant.shorter():
        with contextlib.suppress(OSError):
            if judging.signature_of(judge_mutant(shorter, shorter.write(folder), loaders)) == signature:
                return _shortest(shorter, wrong, folder, loaders)
    return mutant


def judge_mutants(seed: int, numbers: Sequence[int], loaders: Loaders | None = None) -> list[Finding]:
    """Findings of the mutants with these `numbers`; of several that are wrong in one way, the first is shortened."""
    loaders, found, known = loaders or real(), [], dict[str, int]()
    with scratch_folder() as folder:
        for number in numbers:
            mutant = make(f"{seed}/specs/{number}")
            wrong = judge_mutant(mutant, mutant.write(folder), loaders)
            signature = judging.signature_of(wrong)
            known[signature] = known.get(signature, 0) + 1
            if wrong and known[signature] <= 3:
                mutant = _shortest(mutant, wrong, folder, loaders)
                wrong = judge_mutant(mutant, mutant.write(folder), loaders) or wrong
            traced = bool(re.match(r"(load|load_sweeps|check): \w+(Error|Exception|Exit|Warning|Interrupt)\b", wrong))
            content = mutant.content.decode("utf-8", errors="backslashreplace")[:20_000]
            files = {mutant.name: content} if wrong else {}
            told = mutant.told() if wrong else ""
            found.append(Finding("specs", "load and check", wrong, traced, signature, told, files))
    return found


# --- what check accepts, plan and run do not refuse ----------------------------------------------------------------

# What only computing can know, so that check accepts it and plan or run refuses it with exit 2. (pattern, why)
ONLY_COMPUTING_KNOWS: list[tuple[str, str]] = [
    (r"unexpected keyword argument|missing \d+ required", "check executes nothing of what a dotted name refers to"),
    (r"is no ASE calculator|not an ASE calculator", "what a callable returns is known once it is called"),
]

SMALL = [  # sizes at which everything takes seconds; every base gets them, and loses its sweeps, which need larger ones
    *("simulation.size=14", "training.size=6", "training.configurations=3", "training.test=2"),
    *("simulation.max_steps=150",),
]
BASES: dict[str, list[str]] = {
    "w-split": ["model.channels=[8, 3]", "model.degrees=[0, 0]"],
    "nial-screw": ["model.channels=[8, 3]", "simulation.size=16", "training.size=8"],
    "si-edge": ["model.channels=[8, 4, 2]", "model.degrees=[0, 4, 2]", "model.total_degree=[5, 3]", "training.size=5"],
    "w-loop": [
        "model.channels=[8, 3]",
        "model.degrees=[0, 0]",
        "dislocation.diameter=5",
        "training.size=5",
        "simulation.size=12",
    ],
    "w-sharp": ["model.arguments.beyond=4.0"],
}
NUDGES: dict[str, list[Any]] = {
    "case.name": ["a" * 99, "a" * 101, "a" * 300, "0", "a-"],
    "case.title": [
        "",
        "x" * 5000,
        "\x1b[31mred",
        "<b>&amp;",
        "=1+1",
        "a\nb",
        "$\\alpha",
        "%s {0}",
        "\u202egnirts",
        "𝕎 ä",
    ],
    "case.paper": ["x" * 7000, "$"],
    "material.species": [["Mo"], ["W"], ["Fe"]],
    "material.reference": [
        *("W_eam4", "builtins:dict", "os:getcwd", "math:pi", "nomodule:thing", "kim:none", "ase.calculators.emt:EMT"),
        *("ase.calculators.lj:LennardJones", "ase.calculators.emt:", "suite.model.teacher:teacher", "suite:nothing"),
    ],
    "material.arguments": [
        Raw("{ a = 1 }"),
        Raw("{ a = 1979-05-27 }"),
        Raw('{ "a*" = 1 }'),
        Raw("{ a = { b = [1, { c = 2 }] } }"),
        Raw("{ a = nan }"),
    ],
    "material.lattice": ["fcc", "diamond", "B2"],
    "material.strain_step": [1e-5, 0.02],
    "dislocation.kind": ["edge", "mixed", "loop", "screw"],
    "dislocation.variant": ["111", "vacancy", "x"],
    "dislocation.arrangement": ["walls", "dipole", "quadrupole"],
    "dislocation.core": ["hard", "split", "between", "quarter", "glide", "nonsense"],
    "dislocation.sites": [
        [[0.25, 0.25], [0.25, 0.25]],
        [[0.0, 0.0], [0.5, 0.5]],
        [[7.0, -3.0], [0.1, 0.1]],
        [[1e9, 0.1], [0.1, 0.2]],
        [[Raw("nan"), 0.1], [0.1, 0.2]],
    ],
    "dislocation.diameter": [2, 5.5, 7],
    "simulation.size": [12, 12.5, 13, 12.0001, 15.999],
    "simulation.force_tolerance": [1e-30, 1.0, 1e30],
    "simulation.max_steps": [1, 2],
    "simulation.perturbation": [0, 0.5, 3.0, 1e6],
    "simulation.seed": [-1, 2**63, 2**130],
    "training.size": [3.2, 4.99, 5.01, 6.5],
    "training.configurations": [1, 2],
    "training.test": [1],
    "training.amplitudes": [[1e-300], [1e9], [0.1000001, 0.1000002], [5.0], [1e-12, 0.1], [0.1, 0.1], [0.5, 0.1]],
    "training.equilibrium": [False],
    "training.seed": [-1, 2**63, 2**130],
    "model.cutoff": [2.3, 2.6, 3.3, 7.9],
    "model.channels": [[1], [1, 1], [2, 1], [9], [8, 8]],
    "model.degrees": [[0], [0, 3], [0, 0]],
    "model.strain_step": [1e-5, 0.02],
    "model.backend": ["calculator"],
    "model.calculator": ["W_zhou04", "W_eam4", "builtins:dict", "nomodule:thing", "ase.calculators.emt:EMT"],
    "model.arguments": [
        Raw("{ a = 1 }"),
        Raw('{ "a*" = 1 }'),
        Raw("{ a = 1979-05-27 }"),
        Raw('{ a = "' + "x" * 7000 + '" }'),
    ],
    "observables.energy": [False],
    "observables.force": [False],
    "observables.stress": [True],
    "observables.virial1": [False],
    "observables.virial2": [False],
    "observables.shift": [Raw("{ C44 = 1e300 }"), Raw("{ C11 = -1e6 }"), Raw("{ C456 = 5 }")],
    "weights.energy": [0, 1e-300, 1e300],
    "weights.force": [0, 1e-300, 1e300],
    "weights.virial1": [0, 1e300],
    "weights.virial2": [0, 1e12],
    "weights.normalisation": ["mean"],
    "weights.amplitudes": [Raw('{ "0.1" = 0 }'), Raw('{ "0.5" = 1e300 }'), Raw('{ "0" = 5 }')],
    "solver.kind": ["ard", "ridge", "bayesian_ridge"],
    "solver.alpha": [0, 1e300],
    "solver.tolerance": [1e-300, 1.0, 1e10],
    "solver.threshold": [1e-300, 1e300],
    "solver.max_iterations": [1],
    "solver.scale": [False],
    "matching.hessian": [True],
    "tune.trials": [1],
    "tune.limits": [Raw("{ geometry = 1e-300 }")],
}


@dataclass(frozen=True)
class Odd:
    """A shipped case made small, with some odd settings that check may accept."""

    base: str
    nudges: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return [word for setting in (*SMALL, *BASES[self.base], *self.nudges) for word in ("--set", setting)]


def odd(seed: str) -> Odd:
    """The odd spec of a seed."""
    dice = random.Random(seed)
    base = dice.choice(["w-split"] * 4 + list(BASES))
    keys = dice.sample(list(NUDGES), dice.choice([1, 1, 1, 2]))
    if "model.backend" in keys and "model.calculator" not in keys:
        keys.append("model.calculator")
    elif "model.calculator" in keys and "model.backend" not in keys:
        keys.append("model.backend")
    return Odd(base, tuple(f"{key}={value_of(dice.choice(NUDGES[key]))}" for key in keys))


def judge_odd(
    seed: str, run: bool, command: Callable[..., Any] = dislobench, known: Sequence[tuple[str, str]] = ()
) -> list[Finding]:
    """Findings about the first odd spec of a seed that check accepts and that is small: `plan`, and `run` if asked."""
    found: list[Finding] = []
    with scratch_folder() as folder:
        for each in _odds(seed):
            base = _without_sweeps(each.base, folder)
            checked = command(["check", base, *each.words], folder, 30.0)
            if wrong := judging.of_ending(checked, (0, 2)):
                return [_odd_finding("check", each, wrong, checked)]
            if checked.code == 0 and _small(base, each):
                break
        planned = command(["plan", base, *each.words], folder, 60.0)
        found.append(_odd_finding("plan", each, _refused_late(planned, known), planned))
        if run:
            done = command(
                ["run", base, *each.words, "--workspace", str(folder / "runs"), "--workers", "1"], folder, 240.0
            )
            found.append(_odd_finding("run", each, _refused_late(done, known), done))
    return found


def _odds(seed: str) -> Iterator[Odd]:
    for attempt in range(100):
        yield odd(f"{seed}/{attempt}")
    raise AssertionError("check refuses a hundred odd specs: the bases in specs_part.py are no good any more")


def _without_sweeps(base: str, folder: Path) -> str:
    """A copy of a shipped spec that has no sweeps: `check` refuses a spec whose sweeps hold a point that is refused."""
    from suite.spec import specs_folder

    text = (specs_folder() / f"{base}.toml").read_text(encoding="utf-8")
    tables = [t for t in re.split(r"^(?=\[)", text, flags=re.MULTILINE) if not t.startswith("[sweep.")]
    copy = folder / f"{base}.toml"
    copy.write_text(re.sub(r"^sweep\..*\n", "", "".join(tables), flags=re.MULTILINE), encoding="utf-8")
    return str(copy)


def _small(base: str, each: Odd) -> bool:
    """Whether a run takes seconds: from the resolved spec, for a plan may be wrong."""
    from suite.spec import load

    spec = load(base, None, each.words[1::2])
    counts = spec.training.configurations + spec.training.test
    return spec.simulation.size <= 20 and spec.training.size <= 10 and counts <= 12 and sum(spec.model.channels) <= 30


def _refused_late(done: Any, known: Sequence[tuple[str, str]]) -> str:
    """What is wrong with `plan` or `run` of a spec that check accepts."""
    if wrong := judging.of_ending(done, (0, 2, 3)):
        return wrong
    if done.code == 2 and not any(re.search(pattern, done.err) for pattern, _ in (*ONLY_COMPUTING_KNOWS, *known)):
        return f"check says good, {done.arguments[0]} refuses: {done.last_words()}"
    return ""


def _odd_finding(what: str, each: Odd, wrong: str, done: Any) -> Finding:
    settings = " ".join(f"--set {word[:120]!r}" for word in each.nudges)
    small = " ".join(f"--set '{word}'" for word in (*SMALL, *BASES[each.base]))
    told = f"dislobench {what} {each.base} {settings}    (without its sweeps, made small by {small})" if wrong else ""
    return Finding("specs", f"odd specs: {what}", wrong, done.traced, judging.signature_of(wrong), told)


def cases(specs: int, plans: int, runs: int, seed: int) -> list[Case]:
    """The cases of this part."""
    found = []
    for k in range(runs):  # the long ones first
        found.append(Case(f"specs-run-{k}", lambda k=k: judge_odd(f"{seed}/odd/{k}", True), 420.0))
    for k in range(runs, max(plans, runs), 10):
        numbers = range(k, min(k + 10, plans))
        found.append(
            Case(
                f"specs-plan-{k}",
                lambda numbers=numbers: [f for n in numbers for f in judge_odd(f"{seed}/odd/{n}", False)],
                900.0,
            )
        )
    for begin in range(0, specs, CHUNK):
        numbers = range(begin, min(begin + CHUNK, specs))
        found.append(Case(f"specs-{begin}", lambda numbers=numbers: judge_mutants(seed, numbers), 60 + 12 * CHUNK))
    return found
