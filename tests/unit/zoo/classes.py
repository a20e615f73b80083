"""Classes that cannot be imported, forbid setting, or answer with an error."""

from __future__ import annotations

import importlib
import sys
import tempfile
from abc import ABC
from enum import Enum
from pathlib import Path
from typing import Generic, TypeVar

from unit.zoo.case import TEXT, case, cases_of

T = TypeVar("T")


class SlottedError(Exception):
    __slots__ = ("path", "unset")

    def __init__(self, path):
        super().__init__(f"slotted {path}")
        self.path = path


class SlottedChildError(SlottedError):
    __slots__ = ("path",)  # the parent's is shadowed

    def __init__(self, path):
        super().__init__(path)
        SlottedError.path.__set__(self, "the parent's")


class PrivateSlotsError(Exception):
    __slots__ = ("__secret",)

    def __init__(self, text):
        super().__init__(text)
        self.__secret = text


class ForbidsSettingError(Exception):
    def __setattr__(self, name, value):
        msg = f"cannot set {name}"
        raise AttributeError(msg)

    def __delattr__(self, name):
        msg = f"cannot delete {name}"
        raise AttributeError(msg)


class RaisingMeta(type):
    def __eq__(cls, other):
        msg = "classes do not compare"
        raise RuntimeError(msg)

    def __hash__(cls):
        msg = "classes have no hash"
        raise RuntimeError(msg)

    def __repr__(cls):
        msg = "classes have no repr"
        raise RuntimeError(msg)

    def __bool__(cls):
        msg = "classes have no truth"
        raise RuntimeError(msg)

    def __instancecheck__(cls, instance):
        msg = "no instance check"
        raise RuntimeError(msg)


class RaisingMetaError(Exception, metaclass=RaisingMeta):
    pass


class ClosedMeta(type):
    def __getattribute__(cls, name):
        msg = f"the class hides {name}"
        raise RuntimeError(msg)


class ClosedClassError(Exception, metaclass=ClosedMeta):
    pass


class InterruptingMeta(type):
    def __getattribute__(cls, name):
        raise KeyboardInterrupt


class InterruptingClassError(Exception, metaclass=InterruptingMeta):
    pass


class GenericError(Exception, Generic[T]):
    pass


class BothError(KeyError, ValueError):
    pass


class AbstractError(ABC, Exception):
    pass


class LyingClassError(Exception):
    __class__ = property(lambda self: KeyError)


class NoDictError(Exception):
    @property
    def __dict__(self):
        msg = "no __dict__ for you"
        raise RuntimeError(msg)


class DictIsANumberError(Exception):
    __dict__ = 42


class Outer:
    class InnerError(Exception):
        pass


class Fault(Enum):
    DISK = 1


class EnumError(Exception):
    def __init__(self, fault):
        super().__init__(fault)
        self.fault = fault


class ModuleIsNotTextError(Exception):
    __module__ = 42


class ModuleIsNoneError(Exception):
    __module__ = None


class ModuleIsALieError(Exception):
    __module__ = "no.such.module"


class CallableAttributesError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.__dict__["__reduce__"] = None
        self.__dict__["with_traceback"] = 42
        self.__dict__["add_note"] = 42


class NonTextKeysError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.__dict__[42] = "a key that is no text"


class PropertyError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.__dict__["message"] = "beneath"

    @property
    def message(self):
        msg = "a property that raises"
        raise RuntimeError(msg)


cases_of(
    {
        "slots": (lambda: SlottedError("a.bin"), "slotted a.bin"),
        "slots_shadowed": (lambda: SlottedChildError("b.bin"), "slotted b.bin"),
        "slots_private": (lambda: PrivateSlotsError("hidden"), "hidden"),
        "forbids_setting": (lambda: ForbidsSettingError("set once"), "set once"),
        "module_is_none": (lambda: ModuleIsNoneError("nowhere"), "nowhere"),
        "generic_class": (lambda: GenericError[int]("of int"), "of int"),
        "key_error_and_value_error": (lambda: BothError("both"), "'both'"),
        "abstract_base": (lambda: AbstractError("abstract"), "abstract"),
        "dunder_class_lies": (lambda: LyingClassError("it lies"), "it lies"),
        "dunder_dict_raises": (lambda: NoDictError("no dict"), "no dict"),
        "dunder_dict_is_a_number": (lambda: DictIsANumberError("forty"), "forty"),
        "nested_class": (
            lambda: Outer.InnerError("inside"),
            "Outer.InnerError: inside",
        ),
        "enum_argument": (lambda: EnumError(Fault.DISK), "Fault.DISK"),
        "attributes_shadow_methods": (
            lambda: CallableAttributesError("shadows"),
            "shadows",
        ),
        "attribute_name_is_no_text": (lambda: NonTextKeysError("odd"), "odd"),
        "property_hides_an_attribute": (lambda: PropertyError("beneath it"), "beneath"),
    }
)
cases_of(
    {
        "module_is_not_text": (lambda: ModuleIsNotTextError("42"), "42"),
        "module_is_a_lie": (
            lambda: ModuleIsALieError("elsewhere"),
            "no.such.module.ModuleIsALieError: elsewhere",
        ),
        "dynamic_class": (
            lambda: type("MadeError", (ValueError,), {})("made"),
            "MadeError: made",
        ),
    },
    TEXT,
)
cases_of(
    {
        "class_hides_everything": (lambda: ClosedClassError("closed"), "closed"),
        "class_interrupts": (lambda: InterruptingClassError("stop"), "stop"),
    },
    TEXT,
    exact=False,
)


cases_of(
    {"metaclass_raises": (lambda: RaisingMetaError("the meta"), "the meta")},
    exact=False,
)


@case(TEXT, says="local_class.<locals>.LocalError: local")
def local_class():
    class LocalError(Exception):
        pass

    msg = "local"
    raise LocalError(msg)


@case(TEXT, says="local_base.<locals>.LocalBase: local base")
def local_base():
    class LocalBase(BaseException):
        pass

    msg = "local base"
    raise LocalBase(msg)


@case(TEXT, says="of yesterday")
def stale_class():
    """The module was loaded again: the class is no longer what its name leads to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "zoo_stale.py").write_text("class StaleError(Exception): pass\n")
        sys.path.insert(0, folder)
        try:
            importlib.invalidate_caches()
            module = importlib.import_module("zoo_stale")
            stale = module.StaleError
            importlib.reload(module)
        finally:
            sys.path.remove(folder)
    msg = "of yesterday"
    raise stale(msg)


@case(says="zoo_plugin.PluginError: only here")
def class_of_a_module_that_the_receiver_lacks():
    """The sender can import it: the receiver finds out alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "zoo_plugin.py").write_text("class PluginError(Exception): pass\n")
        sys.path.insert(0, folder)
        try:
            importlib.invalidate_caches()
            module = importlib.import_module("zoo_plugin")
        finally:
            sys.path.remove(folder)
    msg = "only here"
    raise module.PluginError(msg)


@case(says="MainError: in the script")
def class_of_the_main_module():
    main = sys.modules["__main__"]
    if not hasattr(main, "MainError"):
        main.MainError = type("MainError", (Exception,), {"__module__": "__main__"})
    msg = "in the script"
    raise main.MainError(msg)
