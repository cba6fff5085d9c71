#!/bin/sh
# Quorum.app as a disk image: sh packaging/macos/dmg.sh APP TARGET.dmg
#
# Signed when QUORUM_SIGN_IDENTITY names a "Developer ID Application" of the keychain; notarised when also QUORUM_NOTARY_KEY
# (a file, AuthKey_*.p8), QUORUM_NOTARY_KEY_ID and QUORUM_NOTARY_ISSUER are set. Without them it says what that means.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ne 2 ] || [ ! -d "$1/Contents" ]; then
    echo "usage: sh packaging/macos/dmg.sh APP TARGET.dmg" >&2
    exit 2
fi
app=$1
target=$2

sign() {
    codesign --force --timestamp --options runtime --sign "$QUORUM_SIGN_IDENTITY" "$@"
}

if [ -n "${QUORUM_SIGN_IDENTITY:-}" ]; then
    # From the inside out: a bundle's signature covers those of what it holds.
    find "$app/Contents" -type f \( -name '*.dylib' -o -name '*.so' \) -print | sort | while IFS= read -r library; do
        sign "$library"
    done
    sign --entitlements "$here/entitlements.plist" "$app"
    codesign --verify --strict --deep "$app"
else
    echo "Not signed: QUORUM_SIGN_IDENTITY is not set. macOS opens it only after 'Open Anyway' in Privacy & Security."
fi

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
cp -R "$app" "$staging/"
ln -s /Applications "$staging/Applications"
rm -f "$target"
hdiutil create -quiet -volname Quorum -srcfolder "$staging" -fs HFS+ -format UDZO -ov "$target"

if [ -z "${QUORUM_SIGN_IDENTITY:-}" ]; then
    exit 0
fi
codesign --force --timestamp --sign "$QUORUM_SIGN_IDENTITY" "$target"
if [ -n "${QUORUM_NOTARY_KEY:-}" ] && [ -n "${QUORUM_NOTARY_KEY_ID:-}" ] && [ -n "${QUORUM_NOTARY_ISSUER:-}" ]; then
    xcrun notarytool submit "$target" --key "$QUORUM_NOTARY_KEY" --key-id "$QUORUM_NOTARY_KEY_ID" \
        --issuer "$QUORUM_NOTARY_ISSUER" --wait --timeout 30m
    xcrun stapler staple "$target"
else
    echo "Not notarised: QUORUM_NOTARY_KEY, QUORUM_NOTARY_KEY_ID and QUORUM_NOTARY_ISSUER are not all set."
fi
