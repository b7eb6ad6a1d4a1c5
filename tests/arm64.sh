#!/usr/bin/env bash
# Tests of the Python package on an emulated ARM64 machine: tests/arm64.sh FOLDER PYTHON ARGUMENTS...
# PYTHON is one of this machine whose version the system's packages have, with pip; ARGUMENTS are pytest's. FOLDER gets an
# ARM64 Python from the system's own package archive (Debian), packages from PyPI as wheels for ARM64, and the native
# module, which is cross-compiled. All of that is kept. QEMU_CPU chooses the processor.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
python=$2
shift 2
root=$folder/root site=$folder/site package=$folder/package
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if [ ! -e "$folder/.root" ]; then
  mkdir -p "$folder"/apt/state/lists/partial "$folder"/apt/cache/archives/partial "$root"
  : > "$folder/apt/status" # as if nothing were installed
  cat > "$folder/apt/conf" <<CONF
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Install-Recommends "false";
Dir::State "$folder/apt/state";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt/cache";
CONF
  export APT_CONFIG=$folder/apt/conf
  apt-get --quiet update
  apt-get --quiet --yes --download-only install "python$version" "libpython$version-dev" libstdc++6 libgomp1
  for archive in "$folder"/apt/cache/archives/*.deb; do dpkg-deb --extract "$archive" "$root"; done
  # The header that includes this one looks for it among the system's.
  cp "$root/usr/include/aarch64-linux-gnu/python$version/pyconfig.h" "$root/usr/include/python$version/"
  touch "$folder/.root"
fi

if [ ! -e "$folder/.site" ]; then
  install=("$python" -m pip --quiet --disable-pip-version-check install --target "$site" --no-compile --upgrade
    --only-binary :all: --python-version "$version" --implementation cp
    --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64)
  readarray -t ours < <("$python" -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")')
  # pip asks this machine which of PyTorch's requirements hold, and those for CUDA would. Later builds for ARM64 have it.
  "${install[@]}" --no-deps 'torch>=2.9,<2.10'
  "${install[@]}" "${ours[@]}" 'transformers>=5.16' 'sympy>=1.13' networkx fsspec filelock typing-extensions \
    'nanobind>=2.5' 'hypothesis>=6.100' 'pytest>=8.3' 'pytest-timeout>=2.3'
  touch "$folder/.site"
fi

cmake -S . -B "$folder/cmake" -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DPython_EXECUTABLE="$(command -v "$python")" \
  -DPython_INCLUDE_DIR="$root/usr/include/python$version" \
  -Dnanobind_DIR="$site/nanobind/cmake" -DSKBUILD_PROJECT_NAME=outrider
cmake --build "$folder/cmake" --target _native
mkdir -p "$package/outrider.dist-info"
printf 'Metadata-Version: 2.1\nName: outrider\nVersion: 0\n' > "$package/outrider.dist-info/METADATA"
cp -rsf "$PWD/src/outrider" "$package"
cp --remove-destination "$folder"/cmake/_native.*.so "$package/outrider/ops/cpu/_native.so" # named for this machine

# A program that tests may start as well, by the name that Python has of itself.
cat > "$folder/python" <<RUN
#!/bin/sh
exec qemu-aarch64-static -0 "$folder/python" "$root/usr/bin/python$version" "\$@"
RUN
chmod +x "$folder/python"
export QEMU_LD_PREFIX=$root PYTHONHOME=$root/usr PYTHONPATH=$package:$site PYTHONDONTWRITEBYTECODE=1
exec "$folder/python" -m pytest -p no:cacheprovider "$@"
