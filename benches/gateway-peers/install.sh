#!/bin/sh
# Installs the gateways that `waypost-bench gateway --peers` measures: an npm package, two Python environments (their
# libraries need different versions), and a program that Cargo builds in about ten minutes. A second run does nothing.
#
# Needs npm, Cargo and Python 3.11 or newer with venv ($PYTHON, default python3). Node is installed as an npm package on
# Linux x86-64; elsewhere Node 22 or newer must be in PATH.
set -eu
cd "$(dirname "$0")"

python=${PYTHON:-python3}
wanted=$(cat package.json package-lock.json requirements/*.txt install.sh | cksum)
if [ "$(cat .installed 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -f .installed

npm ci --ignore-scripts --no-audit --no-fund
for name in mcp-proxy fastmcp; do
    "$python" -m venv --clear ".venv/$name"
    ".venv/$name/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "requirements/$name.txt"
done
cargo install mcp-proxy --version 0.6.0 --locked --root .venv/rust

# Written last: it says that everything above is installed.
echo "$wanted" >.installed
