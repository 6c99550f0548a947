"""What a series of numbers does next: the best of a few simple models, by their record on the series itself.

Each model runs over the history once and is asked at many origins for what comes next, knowing only what came
before: a rolling-origin backtest (Hyndman & Athanasopoulos, *Forecasting: Principles and Practice*, 3rd ed.,
5.10, https://otexts.com/fpp3/tscv.html). The model with the smallest mean absolute error forecasts; the naive
one unless another is better. The intervals are quantiles of its errors in the backtest, step by step (split
conformal, Angelopoulos & Bates, https://arxiv.org/abs/2107.07511): no distribution is assumed, only that the
errors to come are like those of the past.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from numbers import Real
from statistics import median

LEVEL = 0.8
"""Share of the values to come that the intervals should hold; AWS's cost forecasts state the same one,
https://docs.aws.amazon.com/cost-management/latest/userguide/ce-forecast.html"""
MAX_ORIGINS = 200
MAX_HORIZON = 10_000
_MAX_VALUE = 1e100
_MAX_BACKTESTED = 100_000
"""Values that each model is asked for in a backtest, at most."""
_MARGIN = 0.98
"""A model replaces the naive one, or a better one a simpler, only when its error is smaller by 2 %."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """How the models did on the history, each knowing only what came before."""

    origins: int
    """From how many points forecasts were tried."""
    mae: Mapping[str, float]
    """Mean absolute error of each model over the same steps from the same origins, simplest model first;
    empty when the history is too short to try any."""
    coverage: float | None
    """Share of values that lay within intervals made of errors known by then; None when there were none."""
    level: float = LEVEL
    """What the intervals claim."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The values to come, one for each step."""

    mean: tuple[float, ...]
    """What errs least by its absolute error. The sum of many steps is better forecast from a history of sums:
    values with rare peaks are usually below their average."""
    lower: tuple[float, ...]
    """`-inf` (0 for a history without negative values) where the history is too short to tell."""
    upper: tuple[float, ...]
    """`inf` where the history is too short to tell."""
    model: str
    """A key of `Backtest.mae`, `naive` when that is empty."""
    backtest: Backtest


def forecast(history: Iterable[float | Decimal], horizon: int, season_length: int | None = None) -> Forecast:
    """Forecast a series.

    Parameters
    ----------
    history
        Values at equal distances in time, oldest first.
    horizon
        How many values to forecast, 1 to 10,000.
    season_length
        After how many values a pattern repeats (24 for hours of a day); no pattern when left out. It is
        ignored until the history holds two repetitions and a value more.

    Returns
    -------
    Forecast
        In the unit of the history. No value is negative where no value of the history was.

    Raises
    ------
    ValueError
        The history is empty or holds something that is no finite number, the horizon or the season's length
        is out of range; the message names which.
    """
    values = _values(history)
    _check("horizon", horizon, MAX_HORIZON)
    if season_length is not None:
        _check("season_length", season_length, None)
    season = season_length or 1
    if season < 2 or len(values) < 2 * season + 1:
        season = 1
    models = _models(season)
    trials = _trials(values, horizon, season, models)
    mae = _mean_errors(trials)
    best = "naive"
    for name, error in mae.items():
        if error < mae[best] * _MARGIN:
            best = name
    mean = models[best].predict(horizon)
    widths = list(_widths([trial[best] for trial in trials], horizon))
    floor = 0.0 if min(values) >= 0 else -math.inf
    return Forecast(
        mean=tuple(max(floor, each) for each in mean),
        lower=tuple(max(floor, each - width) for each, width in zip(mean, widths, strict=True)),
        upper=tuple(max(floor, each + width) for each, width in zip(mean, widths, strict=True)),
        model=best,
        backtest=Backtest(len(trials), mae, _coverage([trial[best] for trial in trials])),
    )


def _values(history: Iterable[float | Decimal]) -> list[float]:
    values = []
    for position, each in enumerate(history):
        value = math.nan
        if isinstance(each, Real | Decimal) and not isinstance(each, bool):
            # An integer may be larger than any float, a Decimal a signalling NaN.
            with suppress(OverflowError, ValueError):
                value = float(each)
        if not abs(value) <= _MAX_VALUE:
            raise ValueError(f"history[{position}] is {each!r}, not a finite number within ±{_MAX_VALUE:g}")
        values.append(value)
    if not values:
        raise ValueError("history is empty")
    return values


def _check(name: str, value: object, most: int | None) -> None:
    if type(value) is not int or value < 1 or (most is not None and value > most):
        raise ValueError(f"{name} is {value!r}, not a whole number from 1" + (f" to {most}" if most else ""))


class _Model:
    """A model that is told the values one by one."""

    def update(self, value: float) -> None:
        raise NotImplementedError

    def predict(self, steps: int) -> list[float]:
        raise NotImplementedError


class _SeasonalNaive(_Model):
    """The value of a season ago; with a season of one value the naive model, the last value."""

    def __init__(self, season: int) -> None:
        self._season = season
        self._last: list[float] = []

    def update(self, value: float) -> None:
        self._last.append(value)
        del self._last[: -self._season]

    def predict(self, steps: int) -> list[float]:
        return [self._last[step % len(self._last)] for step in range(steps)]


class _Median(_Model):
    """The median of the last values of the same phase: what is unusual does not move it."""

    def __init__(self, window: int, season: int = 1) -> None:
        self._window, self._season = window, season
        self._last: list[float] = []

    def update(self, value: float) -> None:
        self._last.append(value)
        del self._last[: -self._season * self._window]

    def predict(self, steps: int) -> list[float]:
        season = min(self._season, len(self._last))
        last = self._last[::-1]
        cycle = [median(last[season - 1 - step :: season]) for step in range(min(season, steps))]
        return [cycle[step % season] for step in range(steps)]


class _Drift(_Model):
    """A line through the first and the last value."""

    def __init__(self) -> None:
        self._first, self._last, self._count = 0.0, 0.0, 0

    def update(self, value: float) -> None:
        if not self._count:
            self._first = value
        self._last = value
        self._count += 1

    def predict(self, steps: int) -> list[float]:
        slope = (self._last - self._first) / max(1, self._count - 1)
        return [self._last + slope * step for step in range(1, steps + 1)]


class _Smoothing(_Model):
    """Exponential smoothing of level, damped trend and additive season (fpp3, 8.1 to 8.3).

    Until a weight's share of the past is larger than that of a plain mean, the mean is taken: so the first
    value does not linger.
    """

    def __init__(
        self, alpha: float, beta: float = 0.0, phi: float = 0.0, gamma: float = 0.0, season: int = 1
    ):
        self._alpha, self._beta, self._phi, self._gamma = alpha, beta, phi, gamma
        self._length = season
        self._level, self._trend, self._count = 0.0, 0.0, 0
        self._season: list[float] = []

    def update(self, value: float) -> None:
        self._count += 1
        if self._length > 1 and self._count <= self._length:
            self._season.append(value)
            if self._count == self._length:
                self._level = math.fsum(self._season) / self._length
                self._season = [each - self._level for each in self._season]
            return
        usual = 0.0
        if self._length > 1:
            phase = (self._count - 1) % self._length
            usual = self._season[phase]
        expected = self._level + self._phi * self._trend
        seen = self._count if self._length == 1 else self._count - self._length + 1
        level = expected + max(self._alpha, 1 / seen) * (value - usual - expected)
        if self._beta and seen > 1:
            self._trend = self._phi * self._trend + self._beta * (
                level - self._level - self._phi * self._trend
            )
        self._level = level
        if self._gamma:
            self._season[phase] += self._gamma * (value - level - usual)

    def predict(self, steps: int) -> list[float]:
        found, reach, damping = [], 0.0, 1.0
        for step in range(steps):
            damping *= self._phi
            reach += damping
            usual = self._season[(self._count + step) % self._length] if self._length > 1 else 0.0
            found.append(self._level + reach * self._trend + usual)
        return found


class _Best(_Model):
    """Of models that differ in their weights the one that has been best at the next value so far."""

    def __init__(self, models: Sequence[_Model], season: int = 1) -> None:
        self._models = models
        self._errors = [0.0] * len(models)
        self._until_ready = season

    def update(self, value: float) -> None:
        for position, model in enumerate(self._models):
            if not self._until_ready:
                self._errors[position] += abs(model.predict(1)[0] - value)
            model.update(value)
        self._until_ready = max(0, self._until_ready - 1)

    def predict(self, steps: int) -> list[float]:
        return self._models[self._errors.index(min(self._errors))].predict(steps)


def _models(season: int) -> dict[str, _Model]:
    """Return the candidates, the simplest first."""
    models: dict[str, _Model] = {"naive": _SeasonalNaive(1)}
    if season > 1:
        models["seasonal_naive"] = _SeasonalNaive(season)
    models["drift"] = _Drift()
    models["level"] = _Best([_Smoothing(alpha) for alpha in (0.02, 0.1, 0.3, 0.6)])
    models["median"] = _Best([_Median(window) for window in (5, 15, 50)])
    models["damped_trend"] = _Best(
        [
            _Smoothing(alpha, alpha * share, phi)
            for alpha, share, phi in product((0.2, 0.5, 0.9), (0.1, 0.4), (0.8, 0.98))
        ]
    )
    if season > 1:
        models["seasonal_median"] = _Best([_Median(window, season) for window in (3, 7)], season)
        models["seasonal"] = _Best(
            [
                _Smoothing(alpha, 0.0, 0.0, gamma, season)
                for alpha, gamma in product((0.02, 0.1, 0.4), (0.05, 0.2, 0.5))
            ],
            season,
        )
    return models


_Trial = Mapping[str, Sequence[float]]
"""What each model was wrong by, step by step from one origin."""


def _trials(values: Sequence[float], horizon: int, season: int, models: Mapping[str, _Model]) -> list[_Trial]:
    """Tell the models the history; on the way, at some origins, ask each for what comes next."""
    first = max(season, min(len(values) // 4, 50), 1)
    most = max(1, min(MAX_ORIGINS, _MAX_BACKTESTED // horizon))
    stride = -(-(len(values) - first) // most) or 1
    trials: list[_Trial] = []
    for count, value in enumerate(values):
        if count >= first and (len(values) - 1 - count) % stride == 0:
            ahead = values[count : count + horizon]
            trials.append(
                {
                    name: [true - each for true, each in zip(ahead, model.predict(len(ahead)), strict=True)]
                    for name, model in models.items()
                }
            )
        for model in models.values():
            model.update(value)
    return trials


def _mean_errors(trials: Sequence[_Trial]) -> dict[str, float]:
    count = sum(len(trial["naive"]) for trial in trials)
    return {
        name: math.fsum(abs(each) for trial in trials for each in trial[name]) / count
        for name in (trials[0] if trials else ())
    }


def _bound(errors: Sequence[float]) -> float | None:
    """Return what the next error is below with a probability of `LEVEL`; None when that takes more errors.

    The errors are sorted, without their signs.
    """
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return errors[rank - 1] if rank <= len(errors) else None


def _widths(trials: Sequence[Sequence[float]], horizon: int) -> Iterator[float]:
    """Yield half of the interval's width at each step.

    Where too few trials reached so far, errors are taken to grow like those of a random walk, with the square
    root of the steps, from the last step that enough have reached.
    """
    last, reached = math.inf, 1
    for step in range(horizon):
        bound = _bound(sorted(abs(errors[step]) for errors in trials if step < len(errors)))
        if bound is not None:
            last, reached = bound, step + 1
        yield last * math.sqrt((step + 1) / reached)


def _coverage(trials: Sequence[Sequence[float]]) -> float | None:
    inside = total = 0
    for step in range(max(map(len, trials), default=0)):
        known: list[float] = []
        for errors in trials:
            if step < len(errors):
                bound = _bound(known)
                if bound is not None:
                    inside += abs(errors[step]) <= bound
                    total += 1
                insort(known, abs(errors[step]))
    return inside / total if total else None
