"""Typer with help texts that are shown as they are written: brackets in them are no markup."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable


class LiteralCommand(TyperCommand):
    """A command whose help survives rich: ``[default: bayes]`` is not taken for a style."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help of an escaped copy."""
        TyperCommand.format_help(_escaped(self), ctx, formatter)


class LiteralGroup(TyperGroup):
    """A group of them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help of an escaped copy, with one line of each command."""
        shown = _escaped(self)
        shown.commands = {name: _escaped(command) for name, command in self.commands.items()}
        TyperGroup.format_help(shown, ctx, formatter)


class LiteralTyper(typer.Typer):
    """An application of such commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=LiteralGroup, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a command."""
        return super().command(name, cls=LiteralCommand, **settings)


def _escaped(command: Any) -> Any:
    shown = copy.copy(command)
    shown.help = escape(command.help or "")
    shown.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in shown.params:
        parameter.help = escape(getattr(parameter, "help", None) or "")
    return shown
