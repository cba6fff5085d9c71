"""Info.plist of Quorum.app, for the ``BUNDLE`` of PyInstaller's spec."""

from __future__ import annotations

from typing import Any

IDENTIFIER = "io.github.quorum"
OLDEST = "13.0"  # the engine's wheels need it
SERVICES = ["_quorum._tcp"]
WHY_LOCAL_NETWORK = (
    "Quorum finds the other computers of your network that run Quorum, and sends requests to those you have paired. "
    "Without it Quorum works on this computer alone."
)


def info(version: str) -> dict[str, Any]:
    """What macOS reads of the bundle; ``version`` is ``1.2.3``."""
    return {
        "CFBundleIdentifier": IDENTIFIER,
        "CFBundleName": "Quorum",
        "CFBundleDisplayName": "Quorum",
        "CFBundleExecutable": "quorum",
        "CFBundlePackageType": "APPL",
        "CFBundleShortVersionString": version,
        "CFBundleVersion": version,
        "LSMinimumSystemVersion": OLDEST,
        "LSApplicationCategoryType": "public.app-category.productivity",
        "LSUIElement": True,  # it lives in the menu bar and not in the Dock
        "LSMultipleInstancesProhibited": True,
        "NSHighResolutionCapable": True,
        "NSSupportsAutomaticGraphicsSwitching": True,
        "NSSupportsAutomaticTermination": False,
        "NSSupportsSuddenTermination": False,  # jobs that run are asked to end first
        "NSLocalNetworkUsageDescription": WHY_LOCAL_NETWORK,
        "NSBonjourServices": list(SERVICES),
        # The window shows http://127.0.0.1 and nothing else.
        "NSAppTransportSecurity": {"NSAllowsLocalNetworking": True},
        "NSHumanReadableCopyright": "Apache License 2.0",
    }
