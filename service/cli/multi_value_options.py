"""Options that take several values, spaced or repeated: `--strategy clip yes-no`, `--strategy clip --strategy yes-no`.

click knows only the second way. The first is rewritten into it before click reads the line.
"""

from __future__ import annotations

from collections.abc import Sequence

import click


class SpacedCommand(click.Command):
    """A command whose options with `multiple=True` take all values that follow them.

    If that would leave a required argument without a value, the last of the values is that argument.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(self.params, args, self.required(args)))

    def required(self, args: Sequence[str]) -> int:
        """How many arguments must have values among `args`."""
        return _required(self.params)


def spread(params: Sequence[click.Parameter], args: Sequence[str], required: int | None = None) -> list[str]:
    """`args` with the flag of a `multiple` option repeated before each of its values. `required` arguments (by default
    all that the parameters require) must be among `args`."""
    required = _required(params) if required is None else required
    several = {name for p in params if isinstance(p, click.Option) and p.multiple for name in p.opts}
    valued = {name for p in params if isinstance(p, click.Option) and not p.is_flag for name in p.opts}
    line: list[str] = []
    repeated: list[int] = []  # where in `line` a flag was put in
    flag: str | None = None
    waiting = iter(args)
    for token in waiting:
        name, equals, _ = token.partition("=")
        if token == "--":
            rest = list(waiting)
            required -= len(rest)
            line += [token, *rest]
        elif token.startswith("-") and token != "-":
            flag = name if name in several else None
            line.append(token)
            if name in valued and not equals and (value := next(waiting, None)) is not None:
                line.append(value)
        elif flag is not None:
            repeated.append(len(line))
            line += [flag, token]
        else:
            required -= 1
            line.append(token)
    for place in reversed(repeated[len(repeated) - max(0, required) :] if required > 0 else []):
        del line[place]
    return line


def _required(params: Sequence[click.Parameter]) -> int:
    return sum(isinstance(p, click.Argument) and p.required for p in params)
