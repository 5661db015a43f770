#!/usr/bin/env bash
# Install the Debian packages that the build, Open3D and MinkowskiEngine need and this machine lacks.
set -euo pipefail

packages=(
    g++ make                                       # MinkowskiEngine and geonorm's C++ kernels
    libopenblas-dev                                # MinkowskiEngine's matrix products
    libusb-1.0-0 libegl1 libgl1 libx11-6           # Open3D
    libudev1 libidn2-0 libgomp1                    # Open3D
    espeak-ng                                      # speech, for a study
    libvulkan1 mesa-vulkan-drivers                 # Open3D's pictures without a screen
)
python=${1:-python3}
# Debian ships the headers and venv of its own Python as packages; other builds carry them.
if [[ "$(readlink -f "$(command -v "$python" || echo /usr/bin/python3)")" == /usr/bin/* ]]; then
    packages+=(python3 python3-venv python3-dev)
fi

if ! command -v dpkg-query >/dev/null; then
    echo "This is no Debian or Ubuntu; install what these packages hold by hand: ${packages[*]}" >&2
    exit 0
fi
missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing system packages: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "These system packages are missing, and neither root nor sudo is at hand:" \
             "${missing[*]}. Ask an administrator to run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
