"""Compile what can be compiled, for hatchling.

`allraise._plain` is the same as what `allraise.plain` does in Python, only faster. So
where there is no compiler, or no header of Python's, the library is built without it:
nothing but a line of the build's output says so, and ``allraise doctor``.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = tuple(
    f"src/allraise/_{name}.c"
    for name in (
        *("plain", "region", "given", "ending", "block"),
        *("direct", "entry", "gates", "gated", "objects", "outline"),
    )
)


class Compile(BuildHookInterface[Any]):
    """Puts the compiled module into the wheel, or beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        is_editable = version == "editable"
        self._made = tempfile.TemporaryDirectory()
        folder = root / "src" if is_editable else Path(self._made.name)
        try:
            made = compiled(root, folder)
        except Exception as error:  # whatever compilers do
            self.app.display_warning(f"allraise is built in Python alone: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if not is_editable:
            build_data["force_include"][str(made)] = f"allraise/{made.name}"

    def finalize(self, *_hatchlings: object) -> None:
        """Leave nothing behind, once the wheel is there."""
        if self.target_name == "wheel":
            self._made.cleanup()


def compiled(root: Path, folder: Path) -> Path:
    """Compile the module.

    Args:
        root: Of the project.
        folder: Where the package is to have it.

    Returns:
        The file that was made.

    Raises:
        Exception: It cannot be compiled here.
    """
    if os.environ.get("ALLRAISE_PURE") == "1":
        msg = "ALLRAISE_PURE=1 asks for that"
        raise RuntimeError(msg)
    if sys.implementation.name != "cpython" or sysconfig.get_config_var(
        "Py_GIL_DISABLED"
    ):
        msg = "the compiled part is for a CPython with a global lock"
        raise RuntimeError(msg)
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        "allraise._plain",
        [str(root / source) for source in SOURCES],
        extra_compile_args=["-std=c11", "-fvisibility=hidden"],
    )
    command = build_ext(Distribution({"ext_modules": [extension]}))
    command.build_lib = str(folder)
    command.force = True  # it knows nothing of the header
    with tempfile.TemporaryDirectory() as command.build_temp:
        command.ensure_finalized()
        command.run()
    return Path(command.get_ext_fullpath("allraise._plain"))
