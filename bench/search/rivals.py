"""Other searches on a simulated clock, as people write them: no gate, eight trials at a time.

`fitting-random` draws from what fits. `plain-tpe`, `plain-gp`, `plain-random` are samplers of
Optuna; a size over the cap is told as a constraint. `ray-tune` is Ray Tune's own `OptunaSearch`,
asked in Tune's order (eight run, one is asked ahead); Tune knows no constraints, so that a score
over the cap has the excess added. `botorch` is qLogNEI over thousands of candidates, the same that
`bayes` has, and is given the size function itself: what does not fit is never proposed. Ray Tune
and BoTorch are no dependencies of the project: their searches run under an interpreter that has
them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.proposing import conditions, distributions
from pgolf_sweep.space.domains import Choices, Constant, Multiples, RandomSuggester, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runs import Search

    from pgolf_sweep.driver.session import Session

MARGIN = 1.01
"""Of the size that BoTorch's candidates keep from the cap, where the size has a noise."""
FIRST = 8
"""Sobol points before BoTorch's model."""
CANDIDATES, AROUND, SAMPLES = 1_000, 6, 64
REFIT_ITERATIONS = 50


class PlainOptuna:
    """An Optuna sampler; lists of numbers are ordered."""

    ahead = 0

    def __init__(self, kind: str, session: Session, seed: int) -> None:
        makers = {
            "plain-tpe": optuna.samplers.TPESampler,
            "plain-gp": optuna.samplers.GPSampler,
            "plain-random": optuna.samplers.RandomSampler,
        }
        self._study = optuna.create_study(sampler=makers[kind](seed=seed))
        self._session = session

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """The sampler's next trial."""
        trial = self._study.ask()
        return trial, self._session.resolve(self._session.spec.space.suggest(trial))

    def tell(self, handle: Any, answer: Mapping[str, float]) -> None:
        """The score, and by how much it is over the cap."""
        cap = self._session.rules.artifact_cap_bytes
        handle.set_constraint("bytes", answer["artifact_bytes"] - cap)
        self._study.tell(handle, answer["val_bpb"])


class FittingRandom:
    """Uniform draws among what fits, by the size function itself."""

    ahead = 0

    def __init__(self, session: Session, surface: Any, seed: int) -> None:
        self._suggester: Any = RandomSuggester(random.Random(seed))
        self._session = session
        self._surface = surface

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """The next draw that fits."""
        while True:
            drawn = self._session.spec.space.suggest(self._suggester)
            knobs = self._session.resolve(drawn)
            if self._surface.size(knobs) <= self._session.rules.artifact_cap_bytes:
                return None, knobs

    def tell(self, handle: Any, answer: Mapping[str, float]) -> None:
        """Nothing is learnt."""


class RayTune:
    """`OptunaSearch` over a Tune search space, asked and told as Tune's controller does it."""

    ahead = 1

    def __init__(self, session: Session, seed: int) -> None:
        from ray.tune.search.optuna import OptunaSearch

        self._session = session
        space = {
            name: domain
            for name, parameter in session.spec.space.parameters.items()
            if (domain := _tune_domain(parameter.domain)) is not None
        }
        self._fixed = {
            name: parameter.domain.value
            for name, parameter in session.spec.space.parameters.items()
            if isinstance(parameter.domain, Constant)
        }
        converted = OptunaSearch.convert_search_space(space)
        self._search = OptunaSearch(converted, metric="val_bpb", mode="min", seed=seed)
        self._asked = 0

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """The searcher's next configuration."""
        self._asked += 1
        name = f"trial-{self._asked}"
        config = self._search.suggest(name)
        return name, self._session.resolve({**self._fixed, **config})

    def tell(self, handle: Any, answer: Mapping[str, float]) -> None:
        """The score, with what it is over the cap added as a share."""
        over = answer["artifact_bytes"] / self._session.rules.artifact_cap_bytes - 1
        result = {"val_bpb": answer["val_bpb"] + max(0.0, over)}
        self._search.on_trial_complete(handle, result=result)


def _tune_domain(domain: Any) -> Any:
    """A parameter the way a search space of Ray Tune is written; None for a constant."""
    from ray import tune

    if isinstance(domain, Constant):
        return None
    if isinstance(domain, Choices):
        return tune.choice(list(domain.options))
    if isinstance(domain, Multiples):
        values = list(domain.values())
        if values == list(range(int(values[0]), int(values[-1]) + 1)):
            return tune.randint(values[0], values[-1] + 1)
        return tune.qrandint(values[0], values[-1], values[1] - values[0])
    assert isinstance(domain, Range), domain
    draw = tune.loguniform if domain.log else tune.uniform
    return draw(domain.low, domain.high)


class BoTorch:
    """QLogNEI of a `SingleTaskGP` with BoTorch's own priors, trials under way as pending points."""

    ahead = 0

    def __init__(self, session: Session, surface: Any, seed: int) -> None:
        import torch
        from scipy.stats import qmc

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self._seed = seed
        self._session = session
        self._surface = surface
        space = session.spec.space
        self._encoding = Encoding(distributions(space), conditions(space))
        self._rng = np.random.default_rng(seed)
        self._sobol = qmc.Sobol(len(self._encoding), scramble=True, rng=self._rng)
        self._rows: list[Any] = []
        self._scores: list[float] = []
        self._sizes: list[float] = []
        self._pending: dict[int, Any] = {}
        self._tried: set[bytes] = set()

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """The best candidate that fits and was not tried."""
        row = self._best() if len(self._scores) >= FIRST else None
        while row is None:
            drawn = self._encoding.snapped(self._sobol.random(1))[0]
            row = drawn if self._may(drawn) else None
        self._tried.add(row.tobytes())
        self._pending[len(self._tried)] = row
        return len(self._tried), self._knobs(row)

    def tell(self, handle: Any, answer: Mapping[str, float]) -> None:
        """The score."""
        self._rows.append(self._pending.pop(handle))
        self._scores.append(answer["val_bpb"])
        self._sizes.append(answer["artifact_bytes"])

    def _knobs(self, row: Any) -> dict[str, Any]:
        values = self._encoding.values(row)
        return self._session.resolve(self._session.spec.space.decode(values))

    def _may(self, row: Any) -> bool:
        """Whether a row is new and fits."""
        if row.tobytes() in self._tried:
            return False
        size = self._surface.size(self._knobs(row))
        exact = getattr(self._surface, "exact_size", False)
        return size * (1.0 if exact else MARGIN) <= self._session.rules.artifact_cap_bytes

    def _best(self) -> Any:
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.sampling import SobolQMCNormalSampler
        from gpytorch.mlls import ExactMarginalLogLikelihood

        encoding = self._encoding
        rows = np.array(self._rows)
        x = torch.tensor(encoding.inputs(rows))
        y = -torch.tensor(self._scores, dtype=torch.double)[:, None]
        model = SingleTaskGP(x, y, outcome_transform=Standardize(1))
        mll = ExactMarginalLogLikelihood(model.likelihood, model)
        fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"maxiter": REFIT_ITERATIONS}})
        pending = list(self._pending.values())
        acquisition = qLogNoisyExpectedImprovement(
            model,
            X_baseline=x,
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=self._seed),
            X_pending=torch.tensor(encoding.inputs(np.array(pending))) if pending else None,
            prune_baseline=True,
        )
        cap = self._session.rules.artifact_cap_bytes
        fitting = [i for i, size in enumerate(self._sizes) if size <= cap]
        order = sorted(fitting, key=lambda i: self._scores[i])[:AROUND]
        around = np.repeat(rows[order or [0]], CANDIDATES // max(1, len(order)), axis=0)
        drawn = encoding.snapped(self._rng.random((CANDIDATES, len(encoding))))
        candidates = np.vstack([drawn, encoding.moved(around, self._rng)])
        inputs = torch.tensor(encoding.inputs(candidates))[:, None, :]
        with torch.no_grad():
            gain = torch.cat([acquisition(part) for part in inputs.split(500)]).numpy()
        for at in np.argsort(-gain, kind="stable"):
            if self._may(candidates[at]):
                return candidates[at]
        return None


def rival(method: str, session: Session, surface: Any, seed: int) -> Search:
    """A search by its name.

    Raises:
        ImportError: This interpreter does not have it.
    """
    match method:
        case "fitting-random":
            return FittingRandom(session, surface, seed)
        case "ray-tune":
            return RayTune(session, seed)
        case "botorch":
            return BoTorch(session, surface, seed)
    return PlainOptuna(method, session, seed)


RIVALS = ("fitting-random", "plain-tpe", "plain-gp", "plain-random", "ray-tune", "botorch")
