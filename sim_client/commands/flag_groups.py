"""Flags that several commands share, written once as the fields of a dataclass.

```python
@dataclass(frozen=True)
class OutputFlags:
    out: Annotated[Path | None, typer.Option(help="Results directory.")] = None

@with_flag_groups
def report(directory: Path, output: OutputFlags) -> None: ...   # sim-client report DIR --out …
```
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

__all__ = ["with_flag_groups"]


def with_flag_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it: every parameter that is a dataclass replaced by the dataclass's fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def flat(**values: Any) -> None:
        filled = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **filled)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name])
        else:
            annotation = hints.get(parameter.name, Any)
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=annotation, kind=kind))
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del flat.__wrapped__  # type: ignore[attr-defined]
    return flat


def _parameters_of(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    assert field.default_factory is MISSING, "a flag's default is a plain value"
    return inspect.Parameter.empty if field.default is MISSING else field.default
