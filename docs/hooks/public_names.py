"""Teaches griffe, which reads the docstrings, what it cannot know from the source alone."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import griffe

import mlekit

#: Classes that users make themselves have arguments; what mlekit makes for them has attributes.
MADE_BY_USERS = ("mlekit.solvers", "mlekit.models.constraints", "mlekit.models.families", "mlekit.models.model")
#: Packages whose public names are instances of classes, or other names for them.
OF_INSTANCES = ("mlekit.models.constraints", "mlekit.models.families")


class PublicNames(griffe.Extension):
    """The module `mle` with all public names, and docstrings in the sections that griffe knows."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Fill the module `mle`; and document instances by their classes."""
        if pkg.path == "mle":
            self._fill(pkg, mlekit)
        if pkg.path == "mlekit":
            for path in OF_INSTANCES:
                self._document_instances(pkg, path)

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Call sections what griffe calls them."""
        if obj.docstring is None:
            return
        # Before a colon griffe wants the type of what is returned: it stands in the signature, so that is nothing.
        names = {"Example:": "Examples:", r"Returns:\n +": r"\g<0>: "}
        if obj.is_class and not obj.path.startswith(MADE_BY_USERS):
            names["Args:"] = "Attributes:"
        for ours, theirs in names.items():
            obj.docstring.value = re.sub(f"^{ours}", theirs, obj.docstring.value, flags=re.MULTILINE)

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Let griffe find the arguments of dataclasses, which modules of equinox are."""
        if not cls.path.startswith(MADE_BY_USERS):
            return
        within = cls.path.removeprefix(f"{cls.module.path}.").split(".")
        if dataclasses.is_dataclass(functools.reduce(getattr, within, importlib.import_module(cls.module.path))):
            name = griffe.ExprName("dataclasses.dataclass")
            cls.decorators.append(griffe.Decorator(name, lineno=None, endlineno=None))

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """And their defaults."""
        if isinstance(attr.value, griffe.ExprCall) and str(attr.value.function) == "eqx.field":
            attr.value.function = griffe.ExprName("dataclasses.field")

    def _fill(self, module: griffe.Module, source: ModuleType) -> None:
        """Put the public names of a module in, and those of the modules among them that list theirs."""
        for name in source.__all__:
            thing = getattr(source, name)
            if hasattr(thing, "__all__"):
                inner = griffe.Module(name, parent=module)
                module.set_member(name, inner)
                self._fill(inner, thing)
            else:
                module.set_member(name, griffe.Alias(name, home(source, name), parent=module))

    @staticmethod
    def _document_instances(pkg: griffe.Module, path: str) -> None:
        module = pkg[path.removeprefix("mlekit.")]
        for name, member in list(module.members.items()):
            thing = getattr(importlib.import_module(path), name)
            kind = thing if inspect.isclass(thing) else type(thing)
            if member.is_alias or not member.is_attribute or not kind.__module__.startswith(path):
                continue
            described = f"{kind.__module__}.{kind.__qualname__}"
            if inspect.isclass(thing):
                module.set_member(name, griffe.Alias(name, described, parent=module))
            elif member.docstring is None:
                of_class = pkg[described.removeprefix("mlekit.")].docstring
                member.docstring = griffe.Docstring(
                    of_class.value, parent=member, parser=of_class.parser, parser_options=of_class.parser_options
                )


def home(source: ModuleType, name: str) -> str:
    """Where a public name is defined. Modules may have the name of a function in them, so Python is asked."""
    thing = getattr(source, name)
    if isinstance(thing, ModuleType):
        return thing.__name__
    if inspect.isroutine(thing) or inspect.isclass(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return f"{source.__name__}.{name}"
