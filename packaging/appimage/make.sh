#!/bin/sh
# An AppImage of dist/quorum, where appimagetool can be had (QUORUM_APPIMAGETOOL or the PATH). It needs the AppImage
# project's runtime, which no package registry has, so this has been run by nobody yet: unproven.
set -eu
cd "$(dirname "$0")/../.."
tool=${QUORUM_APPIMAGETOOL:-$(command -v appimagetool || true)}
if [ -z "$tool" ]; then
    echo "There is no appimagetool: no AppImage is made." >&2
    exit 3
fi
if [ ! -x dist/quorum/quorum ]; then
    echo "There is no dist/quorum: run 'python3 dev.py build' first." >&2
    exit 1
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cp -a dist/quorum/. "$root/"
cp packaging/deb/quorum.desktop assets/icon-256.png "$root/"
mv "$root/icon-256.png" "$root/quorum.png"
ln -s quorum "$root/AppRun"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' router/__init__.py)
ARCH=$(uname -m) "$tool" --no-appstream "$root" "dist/quorum-$version-$(uname -m).AppImage"
