"""An estimator's parameters: its builder's arguments, the options of `fit` and the optimizer's settings."""

import copy
import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from tfbig.backend import keras
from tfbig.errors import InvalidModel, InvalidOption, UnknownOption, did_you_mean
from tfbig.models import mlp
from tfbig.training.building import is_builder
from tfbig.training.fit import fit
from tfbig.training.optimizers import get_optimizer

# Builder arguments of these names are given the training rows, as tfbig.fit gives them by position.
_ROWS = {"x": 0, "x_train": 0, "y": 1, "y_train": 1}
# A builder that takes one of these compiles the model itself.
COMPILING = ("optimizer", "loss", "metrics")
_SETTING = "optimizer__"


class Parameters(BaseEstimator):
    """Gives scikit-learn one flat set of parameters, and each of them to whoever takes it.

    The options are kept as they were given. Defaults are looked up when asked for, so that setting another
    `build` leaves none of the former one's behind.
    """

    # `sample_weight` is for the estimator's fit, where scikit-learn cuts it to a fold's rows.
    _not_options: ClassVar[tuple[str, ...]] = ("sample_weight",)
    _fit_defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        named = inspect.signature(fit).parameters.values()
        taken = [p for p in named if p.kind is p.KEYWORD_ONLY and p.name not in cls._not_options]
        cls._fit_defaults = {p.name: p.default for p in taken} | {"verbose": 0}
        # What help() and scikit-learn see instead of **options.
        shown = [p.replace(default=cls._fit_defaults[p.name]) for p in taken]
        build = inspect.Parameter("build", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=mlp)
        cls.__signature__ = inspect.Signature([build, *shown])

    def __init__(self, build: Callable[..., Any] | None = mlp, **options: Any):
        self._check_names(build, options)
        self._options = options
        self.build = build

    def __getattr__(self, name: str) -> Any:
        # Only for what is no real attribute. Copying and unpickling ask before there are any options.
        if not _is_private(name) and "_options" in vars(self):
            parameters = self.get_params(deep=False)
            if name in parameters:
                return parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not _is_private(name) and name != "build" and name in self.get_params(deep=False):
            self._options[name] = value
        else:
            super().__setattr__(name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns every parameter: `build`, the builder's arguments that have defaults, and `fit`'s options.

        Args:
            deep: As scikit-learn passes it; nothing lies deeper.
        """
        # None stands for a builder and is none: a search that sets it finds the same parameters as before.
        arguments = [] if self.build is None else self._arguments()
        defaults = {p.name: p.default for p in arguments if p.default is not p.empty}
        return {"build": self.build, **self._fit_defaults, **defaults, **self._options}

    def set_params(self, **params: Any) -> Any:
        """Sets parameters by name; `build` first, since it decides which others there are.

        Returns:
            The estimator.

        Raises:
            UnknownOption: Neither the builder nor `fit` has a parameter of that name. Nothing was set.
        """
        build = params.pop("build", self.build)
        self._check_names(build, params)
        self.build = build
        self._options.update(params)
        return self

    def __sklearn_clone__(self) -> Any:
        # A callback that has trained holds its model, which stays behind; everything else comes along.
        given = self._options.get("callbacks")
        callbacks = given if isinstance(given, list | tuple) else [given]
        models = [getattr(callback, "model", None) for callback in callbacks]
        left_behind: dict[int, Any] = {id(model): None for model in models if model is not None}
        twin = type(self)(copy.deepcopy(self.build), **copy.deepcopy(self._options, left_behind))
        if hasattr(self, "_metadata_request"):
            twin._metadata_request = copy.deepcopy(self._metadata_request)
        return twin

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        given = {"build": self.build, **self._options}
        shown = [f"{name}={_repr(value)}" for name, value in given.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _check_names(self, build: Any, names: Iterable[str]) -> None:
        """Raises `UnknownOption` for a name that neither `fit` nor the builder knows."""
        arguments = _arguments(build)
        if arguments is None or any(p.kind is p.VAR_KEYWORD for p in arguments):
            return  # no builder, which fit refuses, or one that takes any name
        own = [p.name for p in arguments if p.kind is not p.VAR_POSITIONAL and p.name.lower() not in _ROWS]
        known = ["build", *self._fit_defaults, *own]
        for name in names:
            if name in known or name.startswith(_SETTING):
                continue
            if name in ("sample_weight", "class_weight"):
                hint = " It goes to fit(X, y, sample_weight=...)."
            else:
                hint = did_you_mean(name, known)
            raise UnknownOption(
                f"{type(self).__name__} has no option {name!r}.{hint} Arguments of {_name(build)}: "
                f"{', '.join(own) or 'none'}. Options of fit: {', '.join(self._fit_defaults)}."
            )

    def _check_parameters(self) -> None:
        """Raises what only the parameters together can tell, before any work starts."""
        if not is_builder(_builder(self.build)):
            raise InvalidModel(
                f"{type(self).__name__} needs a builder, so that each fit starts with a fresh model; got "
                f"{type(self.build).__name__}. Pass a function that makes the model."
            )
        self._check_names(self.build, self._options)
        for name, value in self._options.items():
            if name != "validation_data" and hasattr(value, "__next__"):
                raise InvalidOption(f"{name} must be a list: an iterator would be empty in the second fit.")

    def _arguments(self) -> list[inspect.Parameter]:
        return _arguments(self.build) or []

    def _compile_option(self, name: str) -> Any:
        """The optimizer, loss or metrics for this fit, new ones; None where the builder takes them itself."""
        if name in [p.name for p in self._arguments()]:
            return None
        return _fresh(self.get_params(deep=False)[name])

    def _optimizer(self, model: Any) -> Any:
        """The optimizer with the settings given as `optimizer__learning_rate` and the like."""
        optimizer = self._compile_option("optimizer")
        named = [name for name in self._options if name.startswith(_SETTING)]
        if not named:
            return optimizer
        base = get_optimizer(optimizer or (model.optimizer if model.compiled else "adam"))
        config = base.get_config()
        for name in named:
            if (setting := name.removeprefix(_SETTING)) not in config:
                raise UnknownOption(
                    f"{type(base).__name__} has no setting {setting!r}.{did_you_mean(setting, config)} "
                    f"Its settings: {', '.join(config)}."
                )
            config[setting] = self._options[name]
        return type(base).from_config(config)

    def _call_builder(self, x_train: Any, y_train: Any, found: Mapping[str, Any]) -> Any:
        """Calls the builder with its options, what was found in the data, and the rows if it asks for them."""
        build, given = _builder(self.build), self.get_params(deep=False)
        bound = inspect.signature(build).bind_partial()
        missing = []
        for p in self._arguments():
            if p.kind is p.VAR_KEYWORD:
                named = [*self._fit_defaults, *bound.arguments, "build"]
                rest = {name: value for name, value in given.items() if name not in named}
                bound.arguments[p.name] = {
                    n: _fresh(v) for n, v in rest.items() if not n.startswith(_SETTING)
                }
            elif p.name in found and given.get(p.name) is None:
                bound.arguments[p.name] = found[p.name]
            elif p.name in given:
                bound.arguments[p.name] = _fresh(given[p.name])
            elif p.name.lower() in _ROWS:
                bound.arguments[p.name] = (x_train, y_train)[_ROWS[p.name.lower()]]
            elif p.default is p.empty and p.kind is not p.VAR_POSITIONAL:
                missing.append(p.name)
        if missing:
            raise InvalidModel(
                f"{_name(build)} needs {', '.join(missing)}, which nobody gives. Pass it as an option, "
                f"{type(self).__name__}({_name(build)}, {missing[0]}=...). What it takes from the data is named "
                f"{', '.join(found)}, x_train or y_train."
            )
        return build(*bound.args, **bound.kwargs)


def _builder(build: Any) -> Any:
    return mlp if build is None else build


def _arguments(build: Any) -> list[inspect.Parameter] | None:
    """The builder's parameters, or None for what is no builder."""
    try:
        return list(inspect.signature(_builder(build)).parameters.values())
    except (TypeError, ValueError):
        return None


def _name(build: Any) -> str:
    return getattr(_builder(build), "__name__", type(build).__name__)


def _is_private(name: str) -> bool:
    # What was learned by fitting ends in an underscore, as everywhere in scikit-learn.
    return name.startswith("_") or name.endswith("_")


def _repr(value: Any) -> str:
    return value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else reprlib.repr(value)


def _fresh(value: Any) -> Any:
    """A copy of what a fit would change: optimizers, metrics and layers, also in lists."""
    if isinstance(value, list | tuple):
        return type(value)([_fresh(each) for each in value])
    kinds = (keras.optimizers.Optimizer, keras.metrics.Metric, keras.layers.Layer)
    return copy.deepcopy(value) if isinstance(value, kinds) else value
