#!/bin/sh
# The keys of a runner: sh packaging/macos/keys.sh FOLDER writes those given in the environment into a keychain of its own
# in FOLDER and prints the variables that dmg.sh reads; without them it does nothing and says so on stderr.
# sh packaging/macos/keys.sh --forget FOLDER removes them.
set -eu

if [ "$1" = --forget ]; then
    if [ -f "$2/quorum.keychain-db" ]; then
        security delete-keychain "$2/quorum.keychain-db"
    fi
    rm -rf "$2"
    exit 0
fi

folder=$1
if [ -z "${MACOS_CERTIFICATE:-}" ] || [ -z "${MACOS_SIGN_IDENTITY:-}" ]; then
    echo "No keys for signing: MACOS_CERTIFICATE and MACOS_SIGN_IDENTITY are not both set." >&2
    exit 0
fi
umask 077
mkdir -p "$folder"
keychain=$folder/quorum.keychain-db
password=$(openssl rand -hex 24)
printf '%s' "$MACOS_CERTIFICATE" | base64 --decode > "$folder/certificate.p12"
{
    security create-keychain -p "$password" "$keychain"
    security set-keychain-settings -lut 7200 "$keychain"
    security unlock-keychain -p "$password" "$keychain"
    security import "$folder/certificate.p12" -k "$keychain" -P "${MACOS_CERTIFICATE_PASSWORD:-}" -T /usr/bin/codesign
    security set-key-partition-list -S apple-tool:,apple: -s -k "$password" "$keychain"
    security list-keychains -d user -s "$keychain" login.keychain-db
} >&2
rm "$folder/certificate.p12"
echo "QUORUM_SIGN_IDENTITY=$MACOS_SIGN_IDENTITY"
if [ -n "${MACOS_NOTARY_KEY:-}" ]; then
    printf '%s' "$MACOS_NOTARY_KEY" > "$folder/notary.p8"
    echo "QUORUM_NOTARY_KEY=$folder/notary.p8"
    echo "QUORUM_NOTARY_KEY_ID=${MACOS_NOTARY_KEY_ID:-}"
    echo "QUORUM_NOTARY_ISSUER=${MACOS_NOTARY_ISSUER:-}"
fi
