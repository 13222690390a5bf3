"""Litestar without what it loads because it is there."""

from litestar import Litestar
from litestar.plugins import PluginProtocol


class BareLitestar(Litestar):
    """Litestar without its plugins for pydantic and attrs.

    It would load them, and with them all of pydantic's first version, wherever the two libraries are installed: four
    megabytes for handlers that take a request and nothing else.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins
