"""The wheel's tag: any Python 3, no compiled extension, and one platform if it carries the library."""

from pathlib import Path

from setuptools import setup
from setuptools.dist import Distribution
from wheel.bdist_wheel import bdist_wheel

CARRIES_LIBRARY = (Path(__file__).parent / "src/mlbridge/libmlbridge.so").exists()


class PlatformDistribution(Distribution):
    """Says that the wheel is of one platform although nothing in it is compiled for one Python."""

    def has_ext_modules(self) -> bool:
        return CARRIES_LIBRARY


class PlatformWheel(bdist_wheel):
    """Tags the wheel `py3-none-PLATFORM`."""

    def get_tag(self) -> "tuple[str, str, str]":
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(distclass=PlatformDistribution, cmdclass={"bdist_wheel": PlatformWheel})
